"""Estimators that learn only from some responses of a group, chosen by reward, length or rank.

pass_k            A_best = (r_max - r_second) / (std + eps), others 0          2503.19595, as verl's grpo_passk
filtered_group    A_i = (r_i - mean_S) / (std_S + eps) for i in S, others 0    GFPO, 2508.09726
positives         A_i = 1 for right responses; the others leave the loss       RAFT, 2304.06767
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from advantages.credit import Credit
from advantages.estimate import Advantage, Group
from advantages.needs import Need
from advantages.part import RunSettings
from advantages.statistics import group_sum
from advantages.view import RolloutView


def per_row(advantage_N: Tensor, mask_NT: Tensor) -> Credit:
    """The same advantage at every token of a response."""
    return Credit(torch.where(mask_NT, advantage_N[:, None], 0))


class PassK(Advantage, kind="pass_k"):
    """The best response of a group gets its lead over the second best, all others 0; 0 where two share the best.

    The gradient of the expected maximum of G rewards (2503.19595). `scale="std"` divides by the group's unbiased std,
    as verl's `grpo_passk` does by default. A response alone in its group gets 0.
    """

    shown: ClassVar[tuple[str, ...]] = ("scale",)

    scale: Literal["std", "none"] = "std"
    eps: float = Field(default=1e-6, ge=0)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def estimate(self, view: RolloutView) -> Credit:
        reward_N, valid_N = view.reward_N, view.valid_N
        other_NN = (view.group_N[:, None] == view.group_N) & valid_N
        other_NN = other_NN & ~torch.eye(len(reward_N), dtype=torch.bool, device=reward_N.device)
        rival_N = torch.where(other_NN, reward_N, -torch.inf).amax(dim=1) if len(reward_N) else reward_N
        lead_N = torch.where(valid_N & rival_N.isfinite() & (reward_N > rival_N), reward_N - rival_N, 0)
        if self.scale == "std":
            count_N = group_sum(valid_N.to(reward_N.dtype), view.group_N).clamp(min=1)
            centred_N = torch.where(valid_N, reward_N - group_sum(reward_N, view.group_N) / count_N, 0)
            std_N = (group_sum(centred_N.square(), view.group_N) / (count_N - 1).clamp(min=1)).sqrt()
            lead_N = lead_N / (std_N + self.eps)
        return per_row(lead_N, view.mask_NT)


class FilteredGroup(Advantage, kind="filtered_group"):
    """GRPO's advantage within the best `keep` of a group, 0 for the others (GFPO, 2508.09726).

    Best is shortest (`by="short"`), or of the highest reward per token (`by="efficient"`). Mean and std are those of
    the responses kept: the share of the group, rounded, at least two. The others stay in the loss with advantage 0.
    """

    shown: ClassVar[tuple[str, ...]] = ("keep", "by")

    keep: float = Field(default=0.5, gt=0, lt=1)
    by: Literal["short", "efficient"] = "short"
    eps: float = Field(default=1e-6, ge=0)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def check(self, settings: RunSettings) -> tuple[str, ...]:
        if max(round(self.keep * settings.group_size), 2) >= settings.group_size:
            raise ValueError(
                f"advantage 'filtered_group': {self.keep:g} of {settings.group_size} responses keeps all of them: set "
                "train.group_size higher, or advantage.keep lower"
            )
        return ()

    def estimate(self, view: RolloutView) -> Credit:
        length_N = view.mask_NT.sum(dim=1).to(view.reward_NT.dtype)
        score_N = -length_N if self.by == "short" else view.reward_N / length_N.clamp(min=1)
        peer_NN = (view.group_N[:, None] == view.group_N) & view.valid_N
        ahead_N = (peer_NN & (score_N > score_N[:, None])).sum(dim=1)  # responses that tie are kept or left together
        count_N = (self.keep * peer_NN.sum(dim=1)).round().clamp(min=2)
        kept_N1 = (view.valid_N & (ahead_N < count_N))[:, None]
        inside = RolloutView.of(view.reward_NT, view.mask_NT & kept_N1, view.group_N)
        return Group(eps=self.eps).estimate(inside)


class Positives(Advantage, kind="positives"):
    """A = 1 at the tokens of right responses; all other responses leave the loss and its denominator (RAFT, 2304.06767,
    with the task's verdict as the filter)."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.ACCURACY})

    def estimate(self, view: RolloutView) -> Credit:
        learn_NT = view.mask_NT & (view.accuracy_N > 0.5)[:, None]
        return Credit(learn_NT.to(view.reward_NT.dtype), learn_NT=learn_NT)
