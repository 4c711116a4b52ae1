"""Simulated rollouts: M responses reused for N updates, against N times M responses used once.

    old = pi;  sample;  for each update:  theta += step grad mean_i sum_t min(w A, clip(w) A),   w = pi_t / old_t

X independent repeats run in parallel, each with its own logits: [X, S, V].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.parts import Clip
from rlzoo.lab import qstar
from rlzoo.lab.world import World, make_world
from rlzoo.stats.intervals import Interval, interval


@dataclass(frozen=True)
class Reuse:
    """One arm of the comparison.

    Attributes:
        fresh: every update gets new responses; else all updates of a rollout share them.
        updates: updates per rollout.
        rollouts: number of times that responses are sampled from the current policy.
        responses: responses per update.
        step: step size on the logits.
        repeats: independent repetitions, for the interval.
    """

    fresh: bool
    updates: int = 4
    rollouts: int = 1
    responses: int = 8
    step: float = 0.5
    repeats: int = 2000
    seed: int = 0

    @property
    def sampled(self) -> int:
        """Number of sampled responses."""
        return self.rollouts * self.responses * (self.updates if self.fresh else 1)


def simulate(arm: Reuse, world: World | None = None) -> Interval:
    """Return the success rate after all updates: mean over the repeats, with a 95% interval."""
    world = world or make_world(longest=3)
    generator = torch.Generator().manual_seed(arm.seed)
    logits_XSV = world.logits_SV.expand(arm.repeats, -1, -1).clone()
    for _ in range(arm.rollouts):
        old_XSV = logits_XSV
        law_XR = qstar.probability(old_XSV.softmax(dim=-1), world.space)
        draws = arm.responses * (arm.updates if arm.fresh else 1)
        response_XN = law_XR.multinomial(draws, replacement=True, generator=generator)
        for update in range(arm.updates):
            first = update * arm.responses if arm.fresh else 0
            chosen_XN = response_XN[:, first : first + arm.responses]
            logits_XSV = logits_XSV + arm.step * gradient(world, logits_XSV, old_XSV, chosen_XN)
    end_XR = qstar.probability(logits_XSV.softmax(dim=-1), world.space)
    return interval((end_XR @ world.reward_R).tolist())


def gradient(world: World, logits_XSV: Tensor, old_XSV: Tensor, response_XN: Tensor) -> Tensor:
    """Return the gradient of PPO-clip's objective on one group per repeat: [X, S, V].

    Mean over responses, sum over tokens. The advantage is the reward minus the mean of the other responses.
    """
    space = world.space
    x, s, a = torch.arange(len(response_XN))[:, None, None], space.state_RT[response_XN], space.token_RT[response_XN]
    mask_XNT = space.mask_RT[response_XN]
    reward_XN = world.reward_R[response_XN]
    centred_XN = (reward_XN - reward_XN.mean(dim=1, keepdim=True)) * arm_scale(response_XN.shape[1])
    leaf_XSV = logits_XSV.detach().requires_grad_()
    log_XNT = leaf_XSV.log_softmax(dim=-1)[x, s, a] - old_XSV.log_softmax(dim=-1)[x, s, a]
    gain_XNT = Clip(low=0.2, high=0.2)(torch.where(mask_XNT, log_XNT, 0), centred_XN[..., None].expand_as(log_XNT))
    objective = torch.where(mask_XNT, gain_XNT, 0).sum() / response_XN.shape[1]
    return torch.autograd.grad(objective, leaf_XSV)[0]


def arm_scale(responses: int) -> float:
    """Return n / (n-1), which turns r - mean into leave-one-out: its scale does not depend on the group size."""
    return responses / (responses - 1)
