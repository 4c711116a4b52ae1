"""The first steps train only the critic: the policy samples and does not change by a single bit."""

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
from rlzoo.engine.optimizer import Trainable
from rlzoo.engine.protocol import AdamSettings, RunSpec, StepSettings
from rlzoo.model.adapters import load_adapter
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train
from tests.training.same import untimed

MakeConfig = Callable[..., RunConfig]


def warmed(make_config: MakeConfig, critic: str, steps: int = 3, warmup: int = 2, **optimizer: float) -> RunConfig:
    settings = {"critic": critic, "value_warmup_steps": warmup, "steps": steps}
    return make_config("ppo", train=settings, optimizer={"weight_decay": 0.1} | optimizer)


ALONE, ALL = StepSettings(lr=3e-3, trains="critic"), StepSettings(lr=3e-3)


def held(backbone: Backbone, critic: str, weight_decay: float = 0.1) -> Trainable:
    return Trainable(backbone, RunSpec("run", critic=critic, optimizer=AdamSettings(weight_decay=weight_decay)))


def stepped(run: Trainable, settings: StepSettings, gradients: list[torch.Tensor]) -> float:
    run.add([gradient.clone() for gradient in gradients], loss=0.0)
    return run.step(settings)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_the_critic_alone_learns_first(
    critic: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Weight decay would move a policy even without a gradient."""
    config, head = warmed(make_config, critic), backbone.layout.head_size
    train(config, tmp_path, backbone=backbone)
    records = [record for record in untimed(tmp_path) if record["kind"] == "train"]
    assert all(r["ratio_min"] == pytest.approx(1, abs=1e-5) and r["gradient_norm"] > 0 for r in records[:2])
    assert records[2]["ratio_max"] > 1 + 1e-4
    run, fresh = held(backbone, critic), held(backbone, critic).theta
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        stepped(run, ALONE, [torch.randn(p.shape, generator=generator) for p in run.parameters])
        assert torch.equal(run.theta[:-head], fresh[:-head])
    if critic == "head":
        assert (run.theta[-head:] != fresh[-head:]).all()
    else:
        assert torch.equal(run.theta, fresh) and (run.critic[-head:] != 0).all()
    stepped(run, ALL, [torch.randn(p.shape, generator=generator) for p in run.parameters])
    assert (run.theta[:-head] != fresh[:-head]).any()


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_only_the_critics_gradient_is_clipped_and_told(critic: str, backbone: Backbone) -> None:
    """A gradient of 3 everywhere: the norm is 3 sqrt(n) over what is trained, the head alone or a whole adapter."""
    run = held(backbone, critic)
    gradients = [torch.full_like(p, 3.0).detach() for p in run.parameters]
    size = backbone.layout.head_size if critic == "head" else backbone.layout.size
    assert stepped(run, ALONE, gradients) == pytest.approx(3 * math.sqrt(size), rel=1e-5)
    every = sum(p.numel() for p in run.parameters)
    assert stepped(run, ALL, gradients) == pytest.approx(3 * math.sqrt(every), rel=1e-5)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_the_policys_first_update_is_as_any_runs_first(critic: str, backbone: Backbone, tmp_path: Path) -> None:
    """Adam's first step moves by lr whatever the gradient: its moments have not aged while the policy waited. Nor does
    a run forget that it waits when it is saved and loaded."""
    run, plain, loaded = (held(backbone, critic, weight_decay=0.0) for _ in range(3))
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(p.shape, generator=generator) for p in run.parameters]
    for _ in range(2):
        stepped(run, ALONE, gradients)
    run.save(tmp_path, optimizer=True)
    loaded.load(tmp_path)
    head = backbone.layout.head_size
    stepped(plain, ALL, gradients)
    for one in (run, loaded):
        stepped(one, ALL, gradients)
        torch.testing.assert_close(one.theta[:-head], plain.theta[:-head], rtol=0, atol=1e-7)


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
