"""Muon on a run's adapter: every matrix is stepped as torch.optim.Muon steps a plain matrix, the head as AdamW does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rlzoo.config.run import OptimizerSettings, RunConfig
from rlzoo.engine.optimizer import Trainable
from rlzoo.engine.protocol import MuonSettings, RunSpec, StepSettings
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train

NEVER_CLIPS = 1e9


def held(backbone: Backbone, seed: int = 0, **changes: object) -> Trainable:
    muon = MuonSettings(momentum=0.9, weight_decay=0.1)
    return Trainable(backbone, RunSpec("run", seed, **{"optimizer": muon} | changes))


def gradients(run: Trainable, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator) for p in run.parameters]


def stepped(run: Trainable, seed: int, settings: StepSettings) -> None:
    run.add(gradients(run, seed), loss=0.0)
    run.step(settings)


def test_every_matrix_is_stepped_as_a_plain_one(backbone: Backbone) -> None:
    run, layout = held(backbone, critic="adapter"), backbone.layout
    plain = [[p[0].clone().requires_grad_() for p in layout.split(v.detach()[None])] for v in run.parameters]
    rates = (3e-3, 5e-4)
    optimizers: list[torch.optim.Optimizer] = []
    for pieces, rate in zip(plain, rates, strict=True):
        matrices, head = pieces[:-2], pieces[-2:]
        assert all(x.dim() == 2 for x in matrices) and len(matrices) == 2 * len(layout.layers)
        muon = {"momentum": 0.9, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
        optimizers += [torch.optim.Muon(matrices, lr=rate, **muon), torch.optim.AdamW(head, lr=rate, weight_decay=0.1)]
    settings = StepSettings(lr=rates[0], critic_lr=rates[1], max_grad_norm=NEVER_CLIPS)
    for seed in (1, 2, 3):
        for pieces, gradient in zip(plain, gradients(run, seed), strict=True):
            for x, g in zip(pieces, layout.split(gradient[None]), strict=True):
                x.grad = g[0]
        stepped(run, seed, settings)
        for optimizer in optimizers:
            optimizer.step()
    for vector, pieces in zip(run.parameters, plain, strict=True):
        for found, expected in zip(layout.split(vector.detach()[None]), pieces, strict=True):
            torch.testing.assert_close(found[0], expected.detach(), rtol=1e-6, atol=1e-8)


def test_updates_are_orthogonal_and_of_adams_size(backbone: Backbone) -> None:
    """Singular values of a step are equal up to what five iterations leave of it, and its size is near 0.2 lr."""
    run = held(backbone, optimizer=MuonSettings())
    before = run.theta.detach().clone()
    stepped(run, 1, StepSettings(lr=1e-2, max_grad_norm=NEVER_CLIPS))
    for piece in backbone.layout.split((run.theta.detach() - before)[None])[:-2]:
        singular = torch.linalg.svdvals(piece[0])
        assert singular.max() / singular.min() < 2.5
        assert piece.square().mean().sqrt().item() == pytest.approx(0.2 * 1e-2, rel=0.3)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_a_saved_run_is_taken_up_whole(critic: str, backbone: Backbone, tmp_path: Path) -> None:
    one, other, settings = held(backbone, critic=critic), held(backbone, 5, critic=critic), StepSettings(lr=1e-2)
    stepped(one, 1, settings)
    one.save(tmp_path, optimizer=True)
    other.load(tmp_path)
    for run in (one, other):
        stepped(run, 2, settings)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, other.parameters, strict=True))
    with pytest.raises(UserError, match=r"optimizer\.pt is of optimizer 'muon', and the run has 'adamw'"):
        Trainable(backbone, RunSpec("run", critic=critic)).load(tmp_path)


@pytest.mark.parametrize("critic", ["head", "adapter"])
def test_a_critic_that_learns_alone_leaves_the_policy(critic: str, backbone: Backbone) -> None:
    """The policy does not move by one bit, and its first step is that of a run whose critic did not learn before."""
    run, fresh, head = held(backbone, critic=critic), held(backbone, critic=critic), backbone.layout.head_size
    alone, both = StepSettings(lr=1e-2, trains="critic"), StepSettings(lr=1e-2)
    for seed in (1, 2):
        stepped(run, seed, alone)
    assert torch.equal(run.theta[:-head], fresh.theta[:-head])
    assert not torch.equal(run.critic[-head:], fresh.critic[-head:])
    stepped(run, 3, both)
    stepped(fresh, 3, both)
    assert torch.equal(run.theta[:-head], fresh.theta[:-head])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "muon", "betas": (0.9, 0.95)}, "optimizer.betas does nothing with optimizer.kind = 'muon'"),
        ({"kind": "muon", "eps": 1e-6}, "optimizer.eps does nothing with optimizer.kind = 'muon'"),
        ({"momentum": 0.9}, "optimizer.momentum does nothing with optimizer.kind = 'adamw'"),
        ({"kind": "moun"}, "kind"),
    ],
)
def test_settings_of_the_other_kind_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OptimizerSettings.model_validate(table)


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_a_run_that_was_killed_goes_on_with_its_momenta(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    settings = {"kind": "muon", "momentum": 0.9}
    config = make_config("grpo", train={"steps": 3, "save_every": 1}, optimizer=settings)

    def kill(_: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            raise Killed

    train(config, tmp_path / "whole", backbone=backbone)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", backbone=backbone, on_record=kill)
    train(config, tmp_path / "killed", backbone=backbone, resume=True)
    train(make_config("grpo", train={"steps": 3}), tmp_path / "adamw", backbone=backbone)
    file = "adapter/adapter_model.safetensors"
    weights = [(tmp_path / name / file).read_bytes() for name in ("whole", "killed", "adamw")]
    assert weights[0] == weights[1] != weights[2]
