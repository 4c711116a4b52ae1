"""Tilted: one group counts as much as its best responses.

    L = -1/sum|y| sum_i sum_t min(r_it A_i, clip(r_it, 1-e, 1+e) A_i),   A_i = G exp(R_i / T) / sum_j exp(R_j / T) - 1

Source: an example. A_i sums to 0 over a group: large T gives (R_i - mean) / T, small T the best response against all.
Constants: T = 1, e = 0.2 (our choice).
When it is inert: in groups whose rewards are all equal.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advantages import Advantage, Credit
from objectives import Objective, register
from objectives.parts import Clip, Token, TokenMean


class Tilted(Advantage, kind="tilted"):
    """A_i = G softmax(R / T)_i - 1 over the responses to one prompt, the same at every token of response i."""

    shown = ("temperature",)

    temperature: float = Field(default=1.0, gt=0)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"group"})

    def __call__(self, reward_NT: Tensor, mask_NT: Tensor, group_N: Tensor, value_NT: Tensor | None = None) -> Credit:
        valid_N = mask_NT.any(dim=1)  # a response that cannot be scored has no token, and is nobody's rival
        reward_N = torch.where(mask_NT, reward_NT, 0).sum(dim=1)
        rival_NN = (group_N[:, None] == group_N) & valid_N
        logit_NN = torch.where(rival_NN, reward_N / self.temperature, -torch.inf)
        share_N = logit_NN.softmax(dim=1).diagonal()
        advantage_N = torch.where(valid_N, rival_NN.sum(dim=1) * share_N - 1, 0)
        return Credit(torch.where(mask_NT, advantage_N[:, None], 0))


TILTED = register(
    Objective(
        name="tilted",
        advantage=Tilted(temperature=1.0),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="tilted",
    parent="grpo",
)
