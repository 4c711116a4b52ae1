"""Golden runs: three steps of each preset, pinned. A number that moves here is a change of what users get.

If a change is meant to move them, say so in its commit and put in the numbers that the failure prints.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train
from tests.training.same import untimed

GOLDEN: dict[str, list[tuple[float, float, float]]] = {
    "reinforce": [(0.8125, 0.28125, 5.6484), (0.375, 0.148438, 6.97428), (0.4375, 0.53125, 6.78875)],
    "ppo": [(0.8125, 0.149088, 4.68418), (0.375, 0.0538584, 4.01415), (0.5, 0.0278001, 3.97241)],
    "grpo": [(0.8125, 0.000980904, 3.3891), (0.5, 0.00914108, 3.69506), (0.4375, -0.00826759, 4.2195)],
    "dapo": [(0.8125, 0.390288, 4.47523), (0.375, 0.293038, 3.89491), (0.4375, 0.371005, 2.65743)],
    "gspo": [(0.8125, 0.0065187, 2.57519), (0.5, 0.0156377, 3.18809), (0.5, 0.0113347, 3.37511)],
}


@pytest.mark.parametrize("name", ["reinforce", "ppo", "grpo", "dapo", "gspo"])
def test_golden(name: str, make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path) -> None:
    """Accuracy of the first round, loss and gradient norm (means over the step's updates), step by step."""
    train(make_config(name), tmp_path, backbone=backbone)
    records = [r for r in untimed(tmp_path) if r["kind"] == "train"]
    found = [(r["accuracy"], r["loss"], r["gradient_norm"]) for r in records]
    assert found == [pytest.approx(step, rel=1e-3, abs=1e-5) for step in GOLDEN[name]], found
