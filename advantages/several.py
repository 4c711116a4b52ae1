"""Several rewards, each normalized separately before they are added.

decoupled    A = whiten( sum_k (r_k - mean_k) / (std_k + eps) ),   mean and std over the responses to one prompt
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from advantages.credit import Credit
from advantages.estimate import Advantage, Group
from advantages.needs import Need
from advantages.statistics import whiten
from advantages.view import RolloutView


class DecoupledRewards(Advantage, kind="decoupled_rewards"):
    """Every reward normalized over its group, summed, then whitened over the rollout's responses (GDPO, 2601.05242).

    A reward of small spread counts as much as one of large spread, unlike in a plain sum. The change that `shape` makes
    counts as one more reward. With one reward it is GRPO's advantage, whitened.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    eps: float = Field(default=1e-6, ge=0)
    whiten: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def estimate(self, view: RolloutView) -> Credit:
        mask_NT, shaped_N = view.mask_NT, view.reward_N - view.reward_NK.sum(dim=1)
        first_NT = mask_NT & (mask_NT.cumsum(dim=1) == 1)
        advantage_N = torch.zeros_like(shaped_N)
        for reward_N in (*view.reward_NK.unbind(dim=1), torch.where(shaped_N.abs() > 1e-6, shaped_N, 0)):
            one = RolloutView.of(torch.where(first_NT, reward_N[:, None], 0), mask_NT, view.group_N)
            advantage_N = advantage_N + Group(eps=self.eps).estimate(one).advantage_NT.sum(dim=1) / mask_NT.sum(
                dim=1
            ).clamp(min=1)
        if self.whiten:
            advantage_N = whiten(advantage_N[:, None], view.valid_N[:, None])[:, 0]
        return Credit(torch.where(mask_NT, advantage_N[:, None], 0))
