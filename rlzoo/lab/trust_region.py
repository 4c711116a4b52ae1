"""One exact TRPO step: the natural gradient, up to a bound on KL(old || policy), then a line search.

    max g . x  subject to  x' F x / 2 <= delta:     x = sqrt(2 delta / g' F^-1 g) F^-1 g
    F = sum_s d(s) (diag pi(.|s) - pi pi'),   shortened by 0.8 until KL <= delta and E_old[(pi / old) A] rises

Source: TRPO, Schulman et al. 1502.05477, section 6 and appendix C. In a tabular policy of logits F is block-diagonal
over states, and F^-1 g is the advantage itself, up to a constant in each state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.world import World


@dataclass(frozen=True)
class Step:
    """A step: new logits, expected reward before and after, KL(old || policy) in nats, number of shortenings."""

    logits_SV: Tensor
    before: float
    after: float
    kl: float
    shortened: int


def fisher(logits_SV: Tensor, visits_S: Tensor) -> Tensor:
    """Return the Fisher matrix of whole responses in the logits, [S*V, S*V]."""
    pi_SV = logits_SV.softmax(dim=1)
    blocks = visits_S[:, None, None] * (torch.diag_embed(pi_SV) - pi_SV[:, :, None] * pi_SV[:, None, :])
    return torch.block_diag(*blocks)


def natural_direction(world: World, logits_SV: Tensor) -> Tensor:
    """Return F^+ g, [S, V], with mean 0 in each state, as a constant added to its logits has no effect."""
    visits_S = exact.visits(logits_SV.softmax(dim=1), world.space)
    gradient_SV = exact.logits_gradient(logits_SV, world.space, world.reward_R)
    return (torch.linalg.pinv(fisher(logits_SV, visits_S), hermitian=True) @ gradient_SV.flatten()).view_as(logits_SV)


def trpo_step(world: World, delta: float, natural: bool = True, most: int = 40) -> Step:
    """Take one step from the base; without `natural`, the plain gradient under the same constraint.

    Args:
        delta: bound on KL, in nats per response.
        most: number of lengths tried by the line search; the last one is returned if none satisfies it.
    """
    space, old_SV = world.space, world.logits_SV
    gradient_SV = exact.logits_gradient(old_SV, space, world.reward_R)
    direction_SV = natural_direction(world, old_SV) if natural else gradient_SV
    metric = fisher(old_SV, exact.visits(old_SV.softmax(dim=1), space))
    size = (2 * delta / (direction_SV.flatten() @ metric @ direction_SV.flatten())).sqrt()
    advantage_SV = exact.values(old_SV, space, exact.token_reward(space, world.reward_R)).a_SV
    weight_SV = exact.visits(old_SV.softmax(dim=1), space)[:, None] * advantage_SV
    for shortened in range(most):
        new_SV = old_SV + size * 0.8**shortened * direction_SV
        kl = exact.kl_divergence(old_SV, new_SV, space).item()
        surrogate = (new_SV.softmax(dim=1) * weight_SV).sum().item()  # its value at the old policy is 0
        if kl <= delta and surrogate > 0:
            break
    before, after = (exact.expected(x, space, world.reward_R).item() for x in (old_SV, new_SV))
    return Step(new_SV, before, after, kl, shortened)
