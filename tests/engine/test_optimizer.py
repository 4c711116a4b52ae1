"""A learner: clipping, rates, and an update that is not made when it is not finite."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch

from rlzoo.config.run import RunConfig
from rlzoo.engine.optimizer import Learner, NotFinite
from rlzoo.model.backbone import Backbone

MakeConfig = Callable[..., RunConfig]


def test_adapters_are_those_of_the_seed_and_of_the_role(make_config: MakeConfig, backbone: Backbone) -> None:
    adapter = {"critic": "adapter"}
    one, same, other = (
        Learner(backbone, make_config(name, seed, train=train))
        for name, seed, train in (("grpo", 0, {}), ("ppo", 0, adapter), ("ppo", 1, adapter))
    )
    assert torch.equal(one.theta, same.theta) and not torch.equal(same.theta, other.theta)
    assert one.critic is one.theta and not torch.equal(same.critic, same.theta)
    assert one.theta.dtype == torch.float32


def test_the_first_step_of_adam_and_its_rates(make_config: MakeConfig, backbone: Backbone) -> None:
    """Adam's first step is rate * g / (|g| + eps): the sign of the gradient, whatever the clip has left of it."""
    optimizer = {"lr": 1e-2, "critic_lr": 1e-3, "warmup_steps": 2, "max_grad_norm": 1.0}
    learner = Learner(backbone, make_config("ppo", train={"critic": "adapter"}, optimizer=optimizer))
    before = [p.detach().clone() for p in learner.parameters]
    assert learner.start_step(0) == pytest.approx(5e-3)
    gradients = [torch.full_like(p, sign) for p, sign in zip(before, (3.0, -4.0), strict=True)]
    norm = learner.step(gradients, loss=0.0)
    assert norm == pytest.approx(5 * math.sqrt(len(before[0])), rel=1e-5)  # of both parts together, before clipping
    for parameter, old, step in zip(learner.parameters, before, (-5e-3, 5e-4), strict=True):
        torch.testing.assert_close(parameter - old, torch.full_like(old, step), rtol=1e-3, atol=1e-7)
    moments = [learner.optimizer.state[p]["exp_avg"] for p in learner.parameters]
    squares = sum(float(m.square().sum()) for m in moments)
    assert math.sqrt(squares) == pytest.approx(0.1 * 1.0, rel=1e-4)  # (1 - beta_1) of a gradient of norm 1


def test_a_gradient_below_the_limit_is_not_scaled(make_config: MakeConfig, backbone: Backbone) -> None:
    learner = Learner(backbone, make_config("grpo", optimizer={"max_grad_norm": 1.0}))
    gradient = torch.full_like(learner.theta, 0.5 / math.sqrt(len(learner.theta)))
    learner.step([gradient.detach().clone()], loss=0.0)
    torch.testing.assert_close(learner.optimizer.state[learner.theta]["exp_avg"], 0.1 * gradient.detach())


@pytest.mark.parametrize(("loss", "bad"), [(math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, math.inf)])
def test_an_update_that_is_not_finite_is_not_made(
    loss: float, bad: float, make_config: MakeConfig, backbone: Backbone
) -> None:
    learner = Learner(backbone, make_config("grpo"))
    learner.step([torch.ones_like(learner.theta)], loss=0.0)
    before, moments = learner.theta.detach().clone(), learner.optimizer.state[learner.theta]["exp_avg"].clone()
    gradient = torch.ones_like(learner.theta)
    gradient[3] = bad
    with pytest.raises(NotFinite, match=r"loss .*, gradient norm"):
        learner.step([gradient], loss=loss)
    assert torch.equal(learner.theta, before)
    assert torch.equal(learner.optimizer.state[learner.theta]["exp_avg"], moments)


def test_a_state_is_taken_up_whole(make_config: MakeConfig, backbone: Backbone) -> None:
    config = make_config("ppo", train={"critic": "adapter"})
    one, other = Learner(backbone, config), Learner(backbone, config)
    steps = [[torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for p in one.parameters] for i in (1, 2)]
    one.step(steps[0], loss=0.0)
    other.restore(copy.deepcopy(one.state()))
    for learner in (one, other):
        learner.step([g.clone() for g in steps[1]], loss=0.0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, other.parameters, strict=True))
