"""Settings under which a part does nothing are refused; constants that were chosen for another setting are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from advantages import RunSettings
from objectives import get
from rlzoo.config.run import RunConfig
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train
from tests.runs import backbone as backbone
from tests.runs import make_config as make_config
from tests.runs import model_folder as model_folder

SHORT = RunSettings(max_length=24, group_size=8, updates_per_rollout=4)
LONG = RunSettings(max_length=4096, group_size=8, updates_per_rollout=4)


@pytest.mark.parametrize(
    ("name", "warns"),
    [
        ("gspo", True),  # 3e-4 * sqrt(24) = 0.0015, a tenth of what it is at 2500 tokens
        ("gspo_token", True),
        ("luspo", True),  # 2e-3 * sqrt(24) = 0.0098
        ("gspo[surrogate.low=0.005,surrogate.high=0.0067]", False),  # 0.005 * sqrt(24) = 0.024
        ("gspo[surrogate=linear]", False),
        ("grpo", False),
        ("gmpo", False),
    ],
)
def test_edges_for_long_responses_are_named_where_responses_are_short(name: str, warns: bool) -> None:
    found = get(name).check(SHORT)
    assert bool(found) is warns
    assert all(text.startswith(f"{name}: surrogate 'clip': edges of") and "clip_fraction" in text for text in found)
    assert get(name).check(LONG) == ()
    assert get(name).check(RunSettings(24, 8, updates_per_rollout=1)) == ()  # every ratio is 1: nothing is clipped


def test_an_adaptive_lambda_that_is_0_throughout_is_named() -> None:
    """alpha 0.05: lambda is 0 up to 20 tokens. At 16 tokens lambda 0.95 = 1 - 1 / (16 alpha) wants alpha 1.25."""
    (found,) = get("vapo").check(RunSettings(16, 8))
    assert "lambda is 0 for responses of up to 20 tokens" in found and "advantage.alpha=1.2" in found
    assert get("vapo").check(RunSettings(24, 8)) == ()
    assert get("vapo[advantage.alpha=1.25]").check(RunSettings(16, 8)) == ()


def test_a_run_warns_once_and_keeps_it_in_its_summary(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config("gspo", train={"steps": 1})
    with pytest.warns(UserWarning, match="gspo: surrogate 'clip': edges of 0.0003 and 0.0004"):
        summary = train(config, tmp_path, backbone=backbone)
    assert summary["warnings"] == list(config.warnings) and len(config.warnings) == 1


def test_settings_that_do_nothing_are_refused(make_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(ValueError, match="it punishes beyond 80 tokens, which no response of at most 6 has"):
        make_config("dapo[shape.max_length=100]")
