"""Sampled episodes: responses, and their rewards from a judge with errors. The noise is the same for every learner.

    response = F^-1(u),  u uniform, F the sampler's cumulative probability        judged = reward + sigma e,  e normal

u and e are functions of (seed k, episode n). So learners with the same policy see the same responses and judgements.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlzoo import noise
from rlzoo.lab import exact
from rlzoo.lab.space import Space


@dataclass(frozen=True)
class Episodes:
    """One prompt, K seeds, N episodes each. Shape letters: K seeds, N episodes.

    Attributes:
        reward_R: true reward of every response; exact quantities use this one.
        judge: standard deviation of the judge's error, in rewards; errors are normal, independent, of mean 0.
        seeds, episodes: K and N.
        seed: the first of the K seeds.
    """

    space: Space
    reward_R: Tensor
    judge: float
    seeds: int
    episodes: int
    seed: int = 0

    @property
    def seed_K1(self) -> Tensor:
        """The seeds as keys of the noise, [K, 1]."""
        return (self.seed + torch.arange(self.seeds))[:, None]

    @cached_property
    def reward_SV(self) -> Tensor:
        """True r(s, a)."""
        return exact.token_reward(self.space, self.reward_R)

    @cached_property
    def _uniform_KN(self) -> Tensor:
        return noise.uniform("response", self.seed_K1, torch.arange(self.episodes))

    @cached_property
    def _error_KN(self) -> Tensor:
        uniform_KN = noise.uniform("judge", self.seed_K1, torch.arange(self.episodes))
        return self.judge * torch.special.ndtri(uniform_KN)

    def respond(self, probability_KR: Tensor, first: int, count: int) -> Tensor:
        """Sample episodes `first` to `first + count - 1` from one distribution over responses per seed: [K, count]."""
        cumulative_KR = probability_KR.cumsum(dim=1)
        place_KN = self._uniform_KN[:, first : first + count] * cumulative_KR[:, -1:]
        return torch.searchsorted(cumulative_KR, place_KN).clamp(max=probability_KR.shape[1] - 1)

    def judged(self, response_KN: Tensor, first: int) -> Tensor:
        """Return the judge's rewards of the responses of episodes from `first` on: reward plus error, [K, count]."""
        return self.reward_R[response_KN] + self._error_KN[:, first : first + response_KN.shape[1]]
