"""A KL to the sampling policy whose coefficient adapts from rollout to rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.engine import local
from rlzoo.engine.protocol import Samples
from rlzoo.engine.sampler import sample
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.launch import train


@pytest.mark.parametrize(("target", "goes"), [(1e-9, "up"), (1e3, "down")])
def test_each_step_has_the_coefficient_that_the_step_before_came_to(
    target: float, goes: str, make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config(f"ppo_kl[kl.target={target:g},shape=none]")
    train(config, tmp_path / "run", backbone=backbone)
    steps = [record for record in RunFolder.open(tmp_path / "run").read_metrics() if record["kind"] == "train"]
    assert [step["kl_coef"] for step in steps] == ([1, 2, 4] if goes == "up" else [1, 0.5, 0.25])
    assert all(step["kl_reached"] > 0 for step in steps)
    # Two updates: the second one's ratios are those after the first, the measured ones those after both.
    assert all(0 < step["kl_old"] != pytest.approx(step["kl_reached"]) for step in steps)


def test_how_far_the_policy_came_is_not_measured_from_a_sampler_that_rounds(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At this learning rate the policy moves by 0. From a sampler 0.1 off it is k3(0.1) = e^0.1 - 1.1 = 0.005."""

    def rounding(*args: Any) -> list[Samples]:
        return [replace(samples, logp_NT=samples.logp_NT - 0.1 * samples.mask_NT) for samples in sample(*args)]

    monkeypatch.setattr(local, "sample", rounding)
    once = {"steps": 1, "minibatches": 1, "old_logp": "recompute"}
    config = make_config("ppo_kl[kl.target=0.01,shape=none]", train=once, optimizer={"lr": 1e-12})
    train(config, tmp_path / "run", backbone=backbone)
    (step,) = (record for record in RunFolder.open(tmp_path / "run").read_metrics() if record["kind"] == "train")
    assert step["sampler_gap"] == pytest.approx(0.1, abs=1e-4)
    assert abs(step["kl_reached"]) < 1e-6


def test_without_a_target_nothing_is_measured(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    train(make_config("ppo_kl[kl.target=none]", train={"steps": 1}), tmp_path / "run", backbone=backbone)
    (step,) = (record for record in RunFolder.open(tmp_path / "run").read_metrics() if record["kind"] == "train")
    assert "kl_coef" not in step and "kl_reached" not in step
