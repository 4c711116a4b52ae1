"""A world of the laboratory: the space of responses, a base policy with a chosen success rate, and a reward.

The task is parity: a response is right (reward 1) if it ends with the end token and has an odd number of token 1. So
right and wrong answers have nearly all lengths, and a truncated answer is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.errors import UserError
from rlzoo.lab import exact
from rlzoo.lab.policy import Kind, Policy, make_policy
from rlzoo.lab.space import Space, enumerate_responses


@dataclass(frozen=True)
class World:
    """One prompt with all its responses and their rewards.

    Attributes:
        theta_M: parameters of the base, which is also the reference policy.
        reward_R: the task's reward of every response.
        accuracy_R: 1 if it is right, else 0; selection uses this one.
    """

    space: Space
    policy: Policy
    theta_M: Tensor
    reward_R: Tensor
    accuracy_R: Tensor

    @property
    def logits_SV(self) -> Tensor:
        """Logits of the base."""
        return self.policy.logits_SV(self.theta_M).detach()

    @property
    def success(self) -> float:
        """Probability that a response of the base is right."""
        return exact.expected(self.logits_SV, self.space, self.accuracy_R).item()


def parity(space: Space) -> Tensor:
    """Return 1 for finished responses with an odd number of token 1, else 0: [R]."""
    ones_R = ((space.token_RT == 1) & space.mask_RT).sum(dim=1)
    return ((ones_R % 2 == 1) & space.finished_R).double()


def make_world(
    *, success: float = 0.25, longest: int = 4, vocabulary: int = 3, kind: Kind = "tabular", seed: int = 0
) -> World:
    """Build the parity world with a base that answers right with probability `success`.

    Raises:
        UserError: a success rate outside (0, 1), a space without a right answer or with too many responses, or a base
            that cannot be moved to this rate.
    """
    if not 0 < success < 1:
        raise UserError(f"success rate {success:g}: must be above 0 and below 1")
    space = enumerate_responses(vocabulary, longest)
    right_R = parity(space)
    if not right_R.any():
        raise UserError(f"no response of at most {longest} of {vocabulary} tokens is right: take 3 tokens and length 2")
    policy = make_policy(kind, space)
    theta_M = with_success(policy, policy.initial(seed), right_R, success)
    return World(space, policy, theta_M, right_R, right_R)


def with_success(policy: Policy, theta_M: Tensor, right_R: Tensor, success: float) -> Tensor:
    """Move parameters along the exact gradient of logit P(right) until P(right) is `success`.

    Newton steps along this gradient, of parameter norm 1 at most, until the logit is right to 1e-12.

    Raises:
        UserError: the iteration does not converge from these parameters.
    """
    goal = math.log(success / (1 - success))
    for _ in range(1000):
        leaf_M = theta_M.detach().requires_grad_()
        odds = exact.expected(policy.logits_SV(leaf_M), policy.space, right_R).logit()
        missing = goal - odds.item()
        if abs(missing) < 1e-12:
            return leaf_M.detach()
        (slope_M,) = torch.autograd.grad(odds, leaf_M)
        step_M = slope_M * (missing / slope_M.square().sum().clamp(min=1e-12))
        theta_M = leaf_M.detach() + step_M / step_M.norm().clamp(min=1.0)
    raise UserError(f"could not make a base with success rate {success:g}: try another seed, or a rate nearer to 0.5")
