"""An engine's state of a run: clipping, learning rates, and no step if it is not finite."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from rlzoo.engine.optimizer import OPTIMIZER, Trainable
from rlzoo.engine.protocol import NotFinite, PolicyRef, RunSpec, StepSettings
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone

OWN_CRITIC = {"critic": "adapter"}


def held(backbone: Backbone, seed: int = 0, **changes: object) -> Trainable:
    return Trainable(backbone, RunSpec("run", seed, **changes))


def test_adapters_are_those_of_the_seed_and_of_the_role(backbone: Backbone) -> None:
    one, same, other = held(backbone), held(backbone, 0, **OWN_CRITIC), held(backbone, 1, **OWN_CRITIC)
    assert torch.equal(one.theta, same.theta) and not torch.equal(same.theta, other.theta)
    assert one.critic is one.theta and not torch.equal(same.critic, same.theta)
    assert one.theta.dtype == torch.float32


def test_the_first_step_of_adam_and_its_rates(backbone: Backbone) -> None:
    """Adam's first step is rate * g / (|g| + eps): the sign of the gradient, whatever the clip has left of it."""
    run = held(backbone, **OWN_CRITIC)
    before = [p.detach().clone() for p in run.parameters]
    run.add([torch.full_like(p, sign) for p, sign in zip(before, (3.0, -4.0), strict=True)], loss=0.0)
    norm = run.step(StepSettings(lr=5e-3, critic_lr=5e-4, max_grad_norm=1.0))
    assert norm == pytest.approx(5 * math.sqrt(len(before[0])), rel=1e-5)  # of both parts together, before clipping
    for parameter, old, step in zip(run.parameters, before, (-5e-3, 5e-4), strict=True):
        torch.testing.assert_close(parameter - old, torch.full_like(old, step), rtol=1e-3, atol=1e-7)
    moments = [run.optimizer.state[p]["exp_avg"] for p in run.parameters]
    squares = sum(float(m.square().sum()) for m in moments)
    assert math.sqrt(squares) == pytest.approx(0.1 * 1.0, rel=1e-4)  # (1 - beta_1) of a gradient of norm 1
    assert run.policy == PolicyRef("run", 1)


def test_a_gradient_below_the_limit_is_not_scaled_and_parts_add_up(backbone: Backbone) -> None:
    """Two parts of 1/4 each are a gradient of 1/2: norm 1/2, below the limit of 1."""
    run = held(backbone)
    gradient = torch.full_like(run.theta, 0.25 / math.sqrt(len(run.theta))).detach()
    run.add([gradient.clone()], loss=1.0)
    run.add([gradient.clone()], loss=2.0)
    assert run.step(StepSettings(lr=1e-3)) == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(run.optimizer.state[run.theta]["exp_avg"], 0.1 * 2 * gradient)


@pytest.mark.parametrize(("loss", "bad"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, math.inf)])
def test_a_step_that_is_not_finite_is_not_made(loss: float, bad: float, backbone: Backbone) -> None:
    run, settings = held(backbone), StepSettings(lr=1e-3)
    run.add([torch.ones_like(run.theta).detach()], loss=0.0)
    run.step(settings)
    before, moments = run.theta.detach().clone(), run.optimizer.state[run.theta]["exp_avg"].clone()
    gradient = torch.ones_like(run.theta).detach()
    gradient[3] = bad
    run.add([gradient], loss=loss)
    with pytest.raises(NotFinite, match=r"loss .*, gradient norm"):
        run.step(settings)
    assert torch.equal(run.theta, before) and run.version == 1
    assert torch.equal(run.optimizer.state[run.theta]["exp_avg"], moments)
    assert run.step(settings) == 0  # the gradient that was not finite is forgotten


def test_a_saved_run_is_taken_up_whole(backbone: Backbone, tmp_path: Path) -> None:
    one, other, settings = held(backbone, **OWN_CRITIC), held(backbone, 5, **OWN_CRITIC), StepSettings(lr=1e-2)
    steps = [[torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for p in one.parameters] for i in (1, 2)]
    one.add(steps[0], loss=0.0)
    one.step(settings)
    one.save(tmp_path, optimizer=True)
    other.load(tmp_path)
    for run in (one, other):
        run.add([g.clone() for g in steps[1]], loss=0.0)
        run.step(settings)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, other.parameters, strict=True))
    assert one.version == other.version == 2


def test_moments_of_another_size_are_refused_and_not_read_beyond_their_end(backbone: Backbone, tmp_path: Path) -> None:
    one = held(backbone)
    one.add([torch.ones_like(p) for p in one.parameters], loss=0.0)
    one.step(StepSettings(lr=1e-2))
    one.save(tmp_path, optimizer=True)
    state = torch.load(tmp_path / OPTIMIZER, weights_only=True)
    moments = state["optimizer"]["state"][0]
    moments["exp_avg"] = moments["exp_avg"][:3]
    torch.save(state, tmp_path / OPTIMIZER)
    with pytest.raises(UserError, match="is of another adapter"):
        held(backbone).load(tmp_path)


def test_a_fixed_policy_is_not_trained(backbone: Backbone, tmp_path: Path) -> None:
    held(backbone, 3).save(tmp_path, optimizer=True)
    fixed = held(backbone, optimizer=None, adapter=str(tmp_path / "adapter"))
    assert torch.equal(fixed.theta, held(backbone, 3).theta) and fixed.policy == PolicyRef("run", 1)
    with pytest.raises(UserError, match="'run' is a fixed policy"):
        fixed.step(StepSettings(lr=1e-3))
