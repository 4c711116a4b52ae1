"""Exact optima: Q* and V* by backward induction, without and with KL regularization.

    hard    V*(s) = max_a Q*(s, a)                                    Q(s, a) = r(s, a) + V(s')
    soft    V(s) = beta log sum_a ref(a|s) exp(Q(s, a) / beta)        pi(a|s) = ref(a|s) exp((Q(s, a) - V(s)) / beta)

The soft policy maximizes E[R] - beta KL(pi || ref) between whole responses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.exact import Values
from rlzoo.lab.space import Space


def optimal(space: Space, reward_SV: Tensor) -> Values:
    """Return V*, Q* and A* = Q* - V*, which is 0 for the best token and negative for others."""
    return exact.bellman(space, reward_SV, lambda _, q_XV: q_XV.amax(dim=1))


def soft_optimal(ref_logits_SV: Tensor, space: Space, reward_SV: Tensor, beta: float) -> Values:
    """Return soft V and Q under a KL penalty of beta > 0 to the reference; `soft_policy` turns Q into the policy."""
    ref_logp_SV = ref_logits_SV.log_softmax(dim=1)
    return exact.bellman(space, reward_SV, lambda s, q_XV: beta * (ref_logp_SV[s] + q_XV / beta).logsumexp(dim=1))


def soft_policy(ref_logits_SV: Tensor, q_SV: Tensor, beta: float) -> Tensor:
    """Return log-probs of ref(a|s) exp(Q(s, a) / beta), normalized in each state: [S, V]."""
    return (ref_logits_SV.log_softmax(dim=1) + q_SV / beta).log_softmax(dim=1)


def greedy(q_XSV: Tensor) -> Tensor:
    """Return the probabilities of the greedy policy, ties shared equally; any leading shape X."""
    best_XSV = (q_XSV == q_XSV.amax(dim=-1, keepdim=True)).to(q_XSV.dtype)
    return best_XSV / best_XSV.sum(dim=-1, keepdim=True)


def probability(pi_XSV: Tensor, space: Space) -> Tensor:
    """Return the probability of every response under token probabilities (0 allowed): [..., S, V] -> [..., R]."""
    chosen_XRT = pi_XSV[..., space.state_RT, space.token_RT]
    return torch.where(space.mask_RT, chosen_XRT, 1).prod(dim=-1)
