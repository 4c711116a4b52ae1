"""Baselines from each prompt's past rewards, so that one response per prompt is enough.

tracked    A = whiten(r - alpha / (alpha + beta)),   (alpha, beta) of each prompt      SPO, 2509.13232
           after a visit: alpha <- rho alpha + sum r,   beta <- rho beta + sum (1 - r)
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from pydantic import Field

from advantages.credit import Credit
from advantages.estimate import Advantage
from advantages.needs import Need
from advantages.statistics import whiten
from advantages.view import RolloutView


class Tracked(Advantage, kind="tracked"):
    """Reward minus the prompt's success rate so far, whitened over the rollout's responses (SPO, 2509.13232).

    The rate is the mean of a Beta distribution whose counts are multiplied by `rho` at each visit; both counts begin at
    `prior`, a rate of 1/2. For the counts, rewards are clamped to [0, 1]. Deviation: the paper adapts rho to the KL
    between visits; here it is fixed.
    """

    shown: ClassVar[tuple[str, ...]] = ("rho",)

    rho: float = Field(default=0.9, gt=0, le=1)
    prior: float = Field(default=1.0, gt=0)
    whiten: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.PROMPT})

    def initial_state(self) -> dict[str, list[float]]:
        return {}

    def next_state(self, state: dict[str, list[float]], view: RolloutView) -> dict[str, list[float]]:
        seen: dict[str, list[float]] = {}
        rewards, valids = cast("list[float]", view.reward_N.tolist()), cast("list[bool]", view.valid_N.tolist())
        for prompt, reward, valid in zip(view.prompt_N, rewards, valids, strict=True):
            seen.setdefault(prompt, []).extend([min(max(reward, 0.0), 1.0)] * valid)
        moved = dict(state)
        for prompt, own in seen.items():
            if own:
                right, wrong = state.get(prompt, [self.prior, self.prior])
                moved[prompt] = [
                    self.rho * right + sum(own),
                    self.rho * wrong + len(own) - sum(own),
                ]
        return moved

    def estimate(self, view: RolloutView) -> Credit:
        counts = [self.state.get(prompt, [self.prior, self.prior]) for prompt in view.prompt_N]
        baseline_N = view.reward_NT.new_tensor([right / (right + wrong) for right, wrong in counts])
        advantage_N = torch.where(view.valid_N, view.reward_N - baseline_N, 0)
        if self.whiten:
            advantage_N = whiten(advantage_N[:, None], view.valid_N[:, None])[:, 0]
        return Credit(torch.where(view.mask_NT, advantage_N[:, None], 0))
