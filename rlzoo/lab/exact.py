"""Exact quantities: J and its gradient by enumeration of responses, V, Q and A by backward recursion.

    J = sum_y pi(y) R(y)                    V(s) = sum_a pi(a|s) Q(s, a)
    Q(s, a) = r(s, a) + gamma V(s')         A(s, a) = Q(s, a) - V(s)

Transitions are deterministic (the next state is the longer prefix). V after the last token is 0. r(s, a) is the
response's reward if a ends the response, else 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.lab.space import Space

Backup = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Values:
    """V of every state, Q and A of every token in every state, under one policy."""

    v_S: Tensor
    q_SV: Tensor
    a_SV: Tensor


def probability(logits_SV: Tensor, space: Space) -> Tensor:
    """Probability of every response, [R]; sums to 1 and has the gradient of the logits."""
    return space.logp_RT(logits_SV.log_softmax(dim=1)).sum(dim=1).exp()


def expected(logits_SV: Tensor, space: Space, x_R: Tensor) -> Tensor:
    """E[x(y)] over the responses, a scalar with the gradient of the logits. With x = reward it is J."""
    return (probability(logits_SV, space) * x_R).sum()


def logits_gradient(logits_SV: Tensor, space: Space, x_R: Tensor) -> Tensor:
    """Gradient of E[x(y)] with respect to the logits, [S, V]. With x = reward it is the true policy gradient."""
    leaf_SV = logits_SV.detach().requires_grad_()
    return torch.autograd.grad(expected(leaf_SV, space, x_R), leaf_SV)[0]


def token_reward(space: Space, reward_R: Tensor) -> Tensor:
    """r(s, a), [S, V]: the reward of the response that the token ends, 0 if it continues."""
    return torch.where(space.response_SV >= 0, reward_R[space.response_SV.clamp(min=0)], 0)


def values(logits_SV: Tensor, space: Space, reward_SV: Tensor, gamma: float = 1.0) -> Values:
    """V, Q and A of a policy.

    Args:
        reward_SV: r(s, a), as from `token_reward`; rewards before the last token are allowed.
    """
    pi_SV = logits_SV.detach().softmax(dim=1)
    return bellman(space, reward_SV, lambda s, q_XV: (pi_SV[s] * q_XV).sum(dim=1), gamma)


def bellman(space: Space, reward_SV: Tensor, backup: Backup, gamma: float = 1.0) -> Values:
    """Run the Bellman recursion backwards, from the last token to the empty prefix.

    Args:
        reward_SV: r(s, a).
        backup: V of some states from their Q: called with their indices [X] and q_XV, returns v_X. The mean under a
            policy gives V^pi, the maximum V*.
    """
    v_S = torch.zeros(len(reward_SV), dtype=reward_SV.dtype)
    q_SV = torch.zeros_like(reward_SV)
    for depth in reversed(range(space.longest)):
        s = (space.depth_S == depth).nonzero().flatten()
        next_v = torch.where(space.next_SV[s] >= 0, v_S[space.next_SV[s].clamp(min=0)], 0)
        q_SV[s] = reward_SV[s] + gamma * next_v
        v_S[s] = backup(s, q_SV[s])
    return Values(v_S, q_SV, q_SV - v_S[:, None])


def visits(pi_XSV: Tensor, space: Space) -> Tensor:
    """Probability that a response visits each state, under token probabilities: [..., S]. The sum is E[tokens]."""
    visits_XS = torch.zeros_like(pi_XSV[..., 0])
    visits_XS[..., 0] = 1
    for s, v in (space.next_SV >= 0).nonzero().tolist():  # a prefix precedes its extensions
        visits_XS[..., space.next_SV[s, v]] = visits_XS[..., s] * pi_XSV[..., s, v]
    return visits_XS


def kl_divergence(logits_SV: Tensor, other_logits_SV: Tensor, space: Space) -> Tensor:
    """KL(pi || other) between the distributions of whole responses, in nats; has the gradient of both."""
    logp_R = space.logp_RT(logits_SV.log_softmax(dim=1)).sum(dim=1)
    other_R = space.logp_RT(other_logits_SV.log_softmax(dim=1)).sum(dim=1)
    return (logp_R.exp() * (logp_R - other_R)).sum()
