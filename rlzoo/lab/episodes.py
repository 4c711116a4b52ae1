"""Sampled episodes: which response, and what an imperfect judge says of it. Counter-based, the same for every learner.

Episode n of seed k draws its response with one uniform number, through the cumulative probabilities of whatever policy
samples, and its judge's error with another. So learners with one policy see the same responses and the same judgements.
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
        reward_R: true reward of every response, which all exact quantities are about.
        judge: standard deviation of the judge's error, in rewards; normal, independent, mean 0.
    """

    space: Space
    reward_R: Tensor
    judge: float
    seeds: int
    episodes: int
    seed: int = 0

    @property
    def seed_K1(self) -> Tensor:
        """One number per seed, as a word of the noise."""
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
        """Sample the episodes `first` to `first + count` from a distribution over responses per seed: [K, count]."""
        cumulative_KR = probability_KR.cumsum(dim=1)
        place_KN = self._uniform_KN[:, first : first + count] * cumulative_KR[:, -1:]
        return torch.searchsorted(cumulative_KR, place_KN).clamp(max=probability_KR.shape[1] - 1)

    def judged(self, response_KN: Tensor, first: int) -> Tensor:
        """What the judge says of the responses of the episodes from `first` on: reward plus error, [K, count]."""
        return self.reward_R[response_KN] + self._error_KN[:, first : first + response_KN.shape[1]]
