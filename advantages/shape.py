"""Reward shaping: the task's reward in, the reward of every token out. Accuracy is never touched.

soft_overlong   r_T + R_len(|y|)              (DAPO 2503.14476, section 3.4)
overlong_filter r_t, but unfinished responses leave the loss  (DAPO, table 1)
kl              r_t - beta (log pi - log ref)  (PPO for language models, Ziegler et al. 1909.08593)

The task's reward of a response stands on its last token; with several rewards it is their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages.needs import Need
from advantages.part import Part, RunSettings
from advantages.view import RolloutView


class Shape(Part):
    """Family: (reward_NT, view) -> reward_NT."""

    replaces: ClassVar[bool] = False
    """True if the part ignores its input, so that shapers before it have no effect."""

    def __call__(self, reward_NT: Tensor, view: RolloutView) -> Tensor:
        """The shaped reward of every token; `reward_NT` is what the shapers before this one made of it."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def learns_from(self, view: RolloutView) -> Tensor | None:
        """bool [N]: responses that stay in the loss, whatever their advantage; None for all of them."""
        return None


def shape_reward(parts: Sequence[Shape], view: RolloutView) -> RolloutView:
    """The view with its reward shaped by the parts, in order. Each part sees what it declared in `needs`."""
    for part in parts:
        view = replace(view, reward_NT=part(view.reward_NT, part.sees(view)))
    return view


def at_last_token(x_N: Tensor, mask_NT: Tensor) -> Tensor:
    """Put one number per row on the row's last masked-in token, 0 elsewhere; a fully masked row stays 0."""
    steps = torch.arange(mask_NT.shape[1], device=mask_NT.device)
    last_N = torch.where(mask_NT, steps, -1).amax(dim=1)
    return torch.where(steps == last_N[:, None], x_N[:, None], 0)


class SoftOverlong(Shape, kind="soft_overlong"):
    """Soft overlong punishment: 0 up to Lmax - Lcache tokens, linear to -weight at Lmax, -weight beyond.

    DAPO's constants are Lmax 20480 and Lcache 4096 (section 4.1), a fifth: `cache` is that share. The paper's rewards
    are +1 and -1; beside rewards of 1 and 0 the same punishment weighs twice as much.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    cache: float = Field(default=0.2, gt=0, le=1)
    """Lcache as a share of Lmax."""
    weight: float = Field(default=1.0, gt=0)
    max_length: int | None = Field(default=None, ge=1)
    """Lmax in tokens; None takes the longest response that the run allows."""

    def check(self, settings: RunSettings) -> tuple[str, ...]:
        begin = (1 - self.cache) * (self.max_length or settings.max_length)
        if begin >= settings.max_length:
            raise ValueError(
                f"shape 'soft_overlong': with max_length {self.max_length} it punishes beyond {begin:g} tokens, which "
                f"no response of at most {settings.max_length} has: lower max_length, or leave it out"
            )
        return ()

    def __call__(self, reward_NT: Tensor, view: RolloutView) -> Tensor:
        longest = self.max_length or view.max_length
        cache = self.cache * longest
        length_N = view.mask_NT.sum(dim=1).to(reward_NT.dtype)
        penalty_N = ((longest - cache - length_N) / cache).clamp(-1.0, 0.0) * self.weight
        return reward_NT + at_last_token(penalty_N, view.mask_NT)


class OverlongFilter(Shape, kind="overlong_filter"):
    """Responses cut at the length limit leave the loss, because their outcome is unknown.

    DAPO, 2503.14476, table 1: the first step of its ladder, 30 to 36 points. Rewards stay as they are, so a cut
    response is still in its group's mean, as in TRL's `mask_truncated_completions`.
    """

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.FINISHED})

    def __call__(self, reward_NT: Tensor, view: RolloutView) -> Tensor:
        return reward_NT

    def learns_from(self, view: RolloutView) -> Tensor:
        return view.finished_N


class KLInReward(Shape, kind="kl"):
    """Charge every token beta * k1, k1 = log pi - log ref, so that the return carries KL(pi || ref) without bias.

    With `target` (nats per response) beta adapts once per rollout: beta <- beta (1 + rate * clip(KL / target - 1, -0.2,
    0.2)), Ziegler et al. 1909.08593 with K_beta = `rate` = 0.1. Without it beta stays `coef`, and `rate` is refused.
    """

    shown: ClassVar[tuple[str, ...]] = ("coef",)

    coef: float = Field(default=0.05, ge=0)
    bound: float | None = Field(default=None, gt=0)
    """A token's k1 is clamped to +-bound, before beta; OpenRLHF's bound is 10."""
    target: float | None = Field(default=None, gt=0)
    rate: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _adapts(self) -> Self:
        if self.target is None and self.rate != type(self).model_fields["rate"].default:
            raise ValueError("shape 'kl': rate does nothing without a target: set target (nats per response) too")
        if self.target is not None and self.coef == 0:
            raise ValueError("shape 'kl': a coef of 0 stays 0 and cannot adapt: start above 0, or leave target out")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.LOGP, Need.REF_LOGP})

    def initial_state(self) -> float:
        return self.coef

    def __call__(self, reward_NT: Tensor, view: RolloutView) -> Tensor:
        return reward_NT - self.state * self._k1(view)

    def next_state(self, state: float, view: RolloutView) -> float:
        rows = int(view.valid_N.sum())
        if self.target is None or rows == 0:
            return state
        kl = float(self._k1(view).sum()) / rows
        return state * (1 + self.rate * min(max(kl / self.target - 1, -0.2), 0.2))

    def _k1(self, view: RolloutView) -> Tensor:
        k1_NT = view.logp_NT - view.ref_logp_NT
        return torch.where(view.mask_NT, k1_NT if self.bound is None else k1_NT.clamp(-self.bound, self.bound), 0)
