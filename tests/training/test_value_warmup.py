"""The first steps train the critic alone: the policy samples and does not move, not by one bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.engine.optimizer import Learner
from rlzoo.model.adapters import load_adapter
from rlzoo.model.backbone import Backbone
from rlzoo.training.loop import train
from tests.training.same import untimed

MakeConfig = Callable[..., RunConfig]


def warmed(make_config: MakeConfig, critic: str, steps: int = 3, warmup: int = 2, **optimizer: float) -> RunConfig:
    settings = {"critic": critic, "value_warmup_steps": warmup, "steps": steps}
    return make_config("ppo", train=settings, optimizer={"weight_decay": 0.1} | optimizer)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_the_critic_alone_learns_first(
    critic: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Weight decay would move a policy even without a gradient."""
    config, head = warmed(make_config, critic), backbone.layout.head_size
    fresh = Learner(backbone, config).theta.detach().clone()
    train(config, tmp_path, backbone=backbone)
    records = [record for record in untimed(tmp_path) if record["kind"] == "train"]
    assert all(r["ratio_min"] == pytest.approx(1, abs=1e-5) and r["gradient_norm"] > 0 for r in records[:2])
    assert records[2]["ratio_max"] > 1 + 1e-4
    learner = Learner(backbone, config)
    generator = torch.Generator().manual_seed(0)
    for step in range(2):
        learner.start_step(step)
        learner.step([torch.randn(p.shape, generator=generator) for p in learner.parameters], 0.0)
        assert torch.equal(learner.theta[:-head], fresh[:-head])
    if critic == "head":
        assert (learner.theta[-head:] != fresh[-head:]).all()
    else:
        assert torch.equal(learner.theta, fresh) and (learner.critic[-head:] != 0).all()
    learner.start_step(2)
    learner.step([torch.randn(p.shape, generator=generator) for p in learner.parameters], 0.0)
    assert (learner.theta[:-head] != fresh[:-head]).any()


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_only_the_critics_gradient_is_clipped_and_told(
    critic: str, make_config: MakeConfig, backbone: Backbone
) -> None:
    """A gradient of 3 everywhere: the norm is 3 sqrt(n) over what is trained, the head alone or a whole adapter."""
    learner = Learner(backbone, warmed(make_config, critic))

    def gradients() -> list[torch.Tensor]:
        return [torch.full_like(p, 3.0) for p in learner.parameters]

    learner.start_step(0)
    size = backbone.layout.head_size if critic == "head" else backbone.layout.size
    assert learner.step(gradients(), 0.0) == pytest.approx(3 * math.sqrt(size), rel=1e-5)
    learner.start_step(2)
    every = sum(p.numel() for p in learner.parameters)
    assert learner.step(gradients(), 0.0) == pytest.approx(3 * math.sqrt(every), rel=1e-5)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_the_policys_first_update_is_as_any_runs_first(
    critic: str, make_config: MakeConfig, backbone: Backbone
) -> None:
    """Adam's first step moves by lr whatever the gradient: its moments have not aged while the policy waited."""
    learner, plain = (Learner(backbone, warmed(make_config, critic, warmup=n, weight_decay=0.0)) for n in (2, 0))
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(p.shape, generator=generator) for p in learner.parameters]
    for step in range(3):
        learner.start_step(step)
        learner.step(gradients, 0.0)
    plain.start_step(2)
    plain.step(gradients, 0.0)
    head = backbone.layout.head_size
    torch.testing.assert_close(learner.theta[:-head], plain.theta[:-head], rtol=0, atol=1e-7)


@pytest.mark.parametrize("critic", ["head", "adapter"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_stopped_before_at_and_after_the_turn_it_ends_the_same(
    at: int, critic: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(_: str, record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("train", at + 1):
            raise Killed

    config = warmed(make_config, critic, steps=4)
    train(config, tmp_path / "whole", backbone=backbone)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", backbone=backbone, on_record=kill)
    train(config, tmp_path / "killed", backbone=backbone, resume=True)
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")
    one, other = (load_adapter(backbone.layout, tmp_path / name / "adapter") for name in ("killed", "whole"))
    assert torch.equal(one, other)


def test_without_a_critic_or_without_end_it_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError, match=r"train\.value_warmup_steps = 2, but grpo has no critic: leave it out"):
        make_config("grpo", train={"value_warmup_steps": 2})
    with pytest.raises(ValidationError, match=r"value_warmup_steps 3 leaves the policy none of 3 steps"):
        make_config("ppo", train={"value_warmup_steps": 3})
    shared = {"train": {"value_warmup_steps": 2}, "seeds": 1}
    with pytest.raises(ValidationError, match=r"none of \['grpo'\] has a critic"):
        CompareConfig.model_validate(shared | {"objectives": ["grpo"]})
    both = CompareConfig.model_validate(shared | {"objectives": ["grpo", "ppo"]})
    assert [run.train.value_warmup_steps for run in both.runs()] == [0, 2]
    assert both.shared() == CompareConfig.model_validate({"objectives": ["grpo"], "seeds": 1}).shared()
