"""Tabular Q-learning with epsilon-greedy samples: off-policy, every token is a transition.

    Q(s, a) <- Q(s, a) + alpha (r + max_a' Q(s', a') - Q(s, a)),      alpha = 1 / n(s, a)^0.8
    double: a random one of two tables learns from r + Q_other(s', argmax_a' Q_this(s', a'))

Source: Watkins and Dayan 1992; the double estimator is van Hasselt's, "Double Q-learning", 2010.

Our choice: values start at 0. A response is learned from its last token to its first, because its reward is at the end.
In each state a token is uniform with probability epsilon, else greedy. After each episode, `replay` earlier ones are
drawn uniformly and learned again with their recorded rewards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.lab import qstar
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.learner import Estimate

POWER = 0.8
"""Exponent of the step size. Between 1/2 and 1 the steps sum to infinity and their squares do not (Robbins-Monro)."""


def explore(q_KSV: Tensor, epsilon: float) -> Tensor:
    """Return epsilon-greedy token probabilities: uniform with probability epsilon, else the best (ties shared)."""
    return epsilon / q_KSV.shape[-1] + (1 - epsilon) * qstar.greedy(q_KSV)


class TabularQ:
    """Q-learning with one table, or two with `double`, for all seeds at once. A `learner.Learner`."""

    family = "value-based"

    def __init__(self, episodes: Episodes, epsilon: float = 1.0, double: bool = False, replay: int = 0) -> None:
        self.name = ", ".join(["Q-learning", *["double"] * double, *["replay"] * (replay > 0)])
        self._at = episodes
        self._epsilon, self._replay = epsilon, replay
        shape = (1 + double, episodes.seeds, *episodes.space.next_SV.shape)
        self.q_EKSV = torch.zeros(shape, dtype=torch.float64)
        self._visits_EKSV = torch.zeros(shape, dtype=torch.float64)
        self._response_KN = torch.zeros(episodes.seeds, episodes.episodes, dtype=torch.long)
        self._judged_KN = torch.zeros(episodes.seeds, episodes.episodes, dtype=torch.float64)

    def learn(self, first: int, count: int) -> None:
        seed_K = self._at.seed_K1[:, 0]
        for n in range(first, first + count):
            policy_KSV = explore(self.q_EKSV.mean(dim=0), self._epsilon)
            response_K1 = self._at.respond(qstar.probability(policy_KSV, self._at.space), n, 1)
            self._response_KN[:, n], self._judged_KN[:, n] = response_K1[:, 0], self._at.judged(response_K1, n)[:, 0]
            self._walk(response_K1[:, 0], self._judged_KN[:, n], noise.integers(2, "table", seed_K, n))
            for j in range(self._replay):
                earlier_K1 = noise.integers(n + 1, "replay", seed_K, n, j)[:, None]
                response_K, judged_K = (x.gather(1, earlier_K1)[:, 0] for x in (self._response_KN, self._judged_KN))
                self._walk(response_K, judged_K, noise.integers(2, "table", seed_K, n, j + 1))

    def _walk(self, response_K: Tensor, judged_K: Tensor, coin_K: Tensor) -> None:
        """Learn one response per seed, from its last token to its first, in the table that the coin selects."""
        space, k = self._at.space, torch.arange(len(response_K))
        mine_K = coin_K if len(self.q_EKSV) == 2 else torch.zeros_like(coin_K)
        other_K = len(self.q_EKSV) - 1 - mine_K
        for t in reversed(range(space.longest)):
            there_K, s, a = (x_RT[response_K, t] for x_RT in (space.mask_RT, space.state_RT, space.token_RT))
            next_K = space.next_SV[s, a]
            best_K = self.q_EKSV[mine_K, k, next_K].argmax(dim=1)
            target_K = torch.where(next_K < 0, judged_K, self.q_EKSV[other_K, k, next_K, best_K])
            place = (mine_K, k, s, a)
            self._visits_EKSV[place] += there_K
            alpha_K = there_K / self._visits_EKSV[place].clamp(min=1) ** POWER
            self.q_EKSV[place] += alpha_K * (target_K - self.q_EKSV[place])

    def estimate(self) -> Estimate:
        q_KSV = self.q_EKSV.mean(dim=0)
        best_EKS1 = self.q_EKSV.argmax(dim=-1, keepdim=True)
        bootstrapped_EKS = self.q_EKSV.flip(0).gather(-1, best_EKS1)[..., 0]
        return Estimate(qstar.greedy(q_KSV), q_KSV, bootstrapped_EKS.mean(dim=0))
