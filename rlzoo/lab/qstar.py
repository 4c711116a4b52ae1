"""The best that can be reached, exactly: Q* and V* by backward induction, hard and KL-regularized.

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
    """V*, Q* and the advantage of every token against the best one (0 for the best, else negative)."""
    return exact.bellman(space, reward_SV, lambda _, q_XV: q_XV.amax(dim=1))


def soft_optimal(ref_logits_SV: Tensor, space: Space, reward_SV: Tensor, beta: float) -> Values:
    """Soft values under a KL penalty of beta > 0 to the reference; `soft_policy` makes the policy of them."""
    ref_logp_SV = ref_logits_SV.log_softmax(dim=1)
    return exact.bellman(space, reward_SV, lambda s, q_XV: beta * (ref_logp_SV[s] + q_XV / beta).logsumexp(dim=1))


def soft_policy(ref_logits_SV: Tensor, q_SV: Tensor, beta: float) -> Tensor:
    """Log-probs of ref(a|s) exp(Q(s, a) / beta), normalized in each state: [S, V]."""
    return (ref_logits_SV.log_softmax(dim=1) + q_SV / beta).log_softmax(dim=1)


def greedy(q_XSV: Tensor) -> Tensor:
    """Probabilities of the policy that takes the best token, ties shared equally; any leading shape X."""
    best_XSV = (q_XSV == q_XSV.amax(dim=-1, keepdim=True)).to(q_XSV.dtype)
    return best_XSV / best_XSV.sum(dim=-1, keepdim=True)


def probability(pi_XSV: Tensor, space: Space) -> Tensor:
    """Probability of every response under token probabilities, which may be 0: [..., R] from [..., S, V]."""
    chosen_XRT = pi_XSV[..., space.state_RT, space.token_RT]
    return torch.where(space.mask_RT, chosen_XRT, 1).prod(dim=-1)
