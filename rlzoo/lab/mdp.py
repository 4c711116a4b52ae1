"""Finite Markov decision processes P(s', r | s, a), in which the environment is random too.

    V(s) = sum_a pi(a|s) sum_{s', r} P(s', r | s, a) (r + gamma V(s'))

Example: shoot at a balloon that is near or far, or wait until the wind moves it. A shot ends the episode. The wind (s')
and the hit (r) are each random or deterministic, which gives four cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Process:
    """A decision process. Shape letters: S states, V actions, O outcomes.

    Attributes:
        p_SVO: probability of each outcome; sums to 1 over O.
        reward_SVO: its reward.
        next_SVO: its next state, -1 if the episode ends.
        gamma: the discount.
    """

    p_SVO: Tensor
    reward_SVO: Tensor
    next_SVO: Tensor
    gamma: float

    def ahead(self, v_S: Tensor) -> Tensor:
        """Return r + gamma v(s') of every outcome, [S, V, O]."""
        after = torch.where(self.next_SVO >= 0, v_S[self.next_SVO.clamp(min=0)], 0)
        return self.reward_SVO + self.gamma * after

    def q(self, v_S: Tensor) -> Tensor:
        """Return E[r + gamma v(s')], [S, V]."""
        return (self.p_SVO * self.ahead(v_S)).sum(dim=2)

    def values(self, pi_SV: Tensor) -> Tensor:
        """V of a policy, [S], by solving (1 - gamma P_pi) V = r_pi."""
        states = len(pi_SV)
        weight_SVO = pi_SV[..., None] * self.p_SVO
        reward_S = (weight_SVO * self.reward_SVO).sum(dim=(1, 2))
        onward_SS = torch.zeros(states, states, dtype=pi_SV.dtype)
        for s, v, o in (self.next_SVO >= 0).nonzero().tolist():
            onward_SS[s, self.next_SVO[s, v, o]] += weight_SVO[s, v, o]
        return torch.linalg.solve(torch.eye(states, dtype=pi_SV.dtype) - self.gamma * onward_SS, reward_S)

    def optimal(self, sweeps: int = 2000) -> Tensor:
        """V*, [S], by value iteration."""
        v_S = torch.zeros(len(self.p_SVO), dtype=self.p_SVO.dtype)
        for _ in range(sweeps):
            v_S = self.q(v_S).amax(dim=1)
        return v_S


def residuals(process: Process, pi_SV: Tensor) -> dict[str, float]:
    """Return the largest absolute residual of each Bellman relation, for V and Q of a policy and for V* and Q*."""
    v_S, best_S = process.values(pi_SV), process.optimal()
    q_SV, best_SV = process.q(v_S), process.q(best_S)
    left = {
        "V = sum pi Q": v_S - (pi_SV * q_SV).sum(dim=1),
        "V = sum pi E[r + gamma V(s')]": v_S - (pi_SV[..., None] * process.p_SVO * process.ahead(v_S)).sum(dim=(1, 2)),
        "Q = E[r + gamma V(s')]": q_SV - process.q(v_S),
        "Q = E[r + gamma sum pi Q(s', a')]": q_SV - process.q((pi_SV * q_SV).sum(dim=1)),
        "sum pi A = 0": (pi_SV * (q_SV - v_S[:, None])).sum(dim=1),
        "V* = max E[r + gamma V*(s')]": best_S - process.q(best_S).amax(dim=1),
        "Q* = E[r + gamma max Q*(s', a')]": best_SV - process.q(best_SV.amax(dim=1)),
    }
    return {name: x.abs().max().item() for name, x in left.items()}


def target_variance(process: Process, v_S: Tensor) -> tuple[Tensor, Tensor]:
    """Return Var[r + gamma v(s')] of one sampled target, and Var[E[target | s']], both [S, V].

    The second is the part due to s'; the rest is due to r given s'.
    """
    target_SVO, p_SVO = process.ahead(v_S), process.p_SVO
    mean_SV1 = (p_SVO * target_SVO).sum(dim=2, keepdim=True)
    total_SV = (p_SVO * (target_SVO - mean_SV1).square()).sum(dim=2)
    between_SV = torch.zeros_like(total_SV)
    for after in process.next_SVO.unique().tolist():
        here_SVO = p_SVO * (process.next_SVO == after)
        mass_SV = here_SVO.sum(dim=2)
        mean_SV = (here_SVO * target_SVO).sum(dim=2) / mass_SV.clamp(min=1e-300)
        between_SV += mass_SV * (mean_SV - mean_SV1[..., 0]).square()
    return total_SV, between_SV


def balloon(random_next: bool, random_reward: bool, gamma: float = 0.9) -> Process:
    """Return the balloon: two states (near 0, far 1), two actions (wait 0, shoot 1), up to four outcomes each.

    After waiting, the wind moves the balloon to the other state; with `random_next` it moves or stays with probability
    1/2. A shot hits with probability 0.8 when near and 0.3 when far, for a reward of 1; without `random_reward` the
    reward is that probability. Waiting costs 0.05.
    """
    hit = (0.8, 0.3)
    p, reward = torch.zeros(2, 2, 2, 4, dtype=torch.float64)
    after = torch.full((2, 2, 4), -1)
    for s in range(2):
        winds = [(0.5, 0), (0.5, 1)] if random_next else [(1.0, 1 - s)]
        for o, (chance, where) in enumerate(winds):
            p[s, 0, o], reward[s, 0, o], after[s, 0, o] = chance, -0.05, where
        shots = [(hit[s], 1.0), (1 - hit[s], 0.0)] if random_reward else [(1.0, hit[s])]
        for o, (chance, paid) in enumerate(shots):
            p[s, 1, o], reward[s, 1, o] = chance, paid
    return Process(p, reward, after, gamma)
