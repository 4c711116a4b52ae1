"""Surrogates: the per-token objective, to be maximized, from log-ratio and advantage.

linear            r A
clip              min(r A, clip(r, 1 - low, 1 + high) A)          PPO, 1707.06347, equation 7
clipped_weight    sg(clip(r, floor, cap)) A log pi                CISPO, MiniMax-M1 2506.13585
soft_gate         4 / tau sigmoid(tau (r - 1)) A                  SAPO, 2511.20347
log               log(r) A                                        maximum likelihood
geometric_mean    exp(mean_t clip(log r_t)) A                     GMPO, 2507.20673
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages import Part, RunSettings

LOG_RATIO_MAX = 20.0
"""Bound of the log-ratio. A ratio above e^20 means a diverged run; the bound avoids inf * 0 = nan (verl uses +-20 too).

Beyond it the gradient is 0 for every surrogate, and the token counts as clipped."""

GSPO_REACH = 0.015
"""Clip bound times sqrt(length), 3e-4 * sqrt(2500), of GSPO's paper, whose responses have thousands of tokens. The
spread of a mean of n log-ratios is about 1 / sqrt(n), so a smaller product clips more than the paper's 15% (2507.18071,
section 5.2); at 20 tokens the same bounds clip 53% to 66%."""


class Surrogate(Part):
    """Family: (log_ratio_BT, advantage_BT) -> objective_BT, to be maximized."""

    clips: ClassVar[bool] = False
    """True if the slope at ratio 1 is the advantage, as for `linear`: the surrogate is inert where every ratio is 1
    (ratio `none`, or one update per rollout)."""

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def in_rows(self, log_ratio_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The same for whole responses, one per row; objectives call this. A member whose tokens depend on each other
        overrides it."""
        return self(log_ratio_BT, advantage_BT)

    def of_tokens(self, log_ratio_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, old_logp_BT: Tensor) -> Tensor:
        """The same with the old log-probs, for members that read how likely a token was."""
        return self.in_rows(log_ratio_BT, advantage_BT, mask_BT)

    def check_sequences(self, settings: RunSettings) -> tuple[str, ...]:
        """Warnings where the log-ratios are means over responses, whose spread falls with the root of their length."""
        return ()


def ratio(log_ratio_BT: Tensor) -> Tensor:
    """exp of the log-ratio, bounded above by e^20."""
    return log_ratio_BT.clamp(max=LOG_RATIO_MAX).exp()


class Linear(Surrogate, kind="linear"):
    """r A: importance sampling, nothing else. With ratio `none` it is REINFORCE."""

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return ratio(log_ratio_BT) * advantage_BT


class Clip(Surrogate, kind="clip"):
    """min(r A, clip(r, 1-low, 1+high) A): a pessimistic bound, one-sided.

    The gradient is r A grad log pi except in two cells, where it is 0: A > 0 with r > 1+high (a good token grown likely
    enough) and A < 0 with r < 1-low (a bad one grown unlikely enough). `high` above `low` is DAPO's clip-higher.
    `dual` (c > 1) bounds the other side of A < 0: max(min(..), c A) (dual clip, 1912.09729); None is off.
    `drift` drops whole responses with A < 0 that have become unlikely: mean_t (log old - log pi) > drift leaves no
    gradient (off-policy sequence mask, DeepSeek-V3.2 2512.02556); None is off. Meant for ratio `token`.
    """

    shown: ClassVar[tuple[str, ...]] = ("low", "high")
    clips: ClassVar[bool] = True

    low: float = Field(default=0.2, ge=0, lt=1)
    high: float = Field(default=0.2, ge=0)
    dual: float | None = Field(default=None, gt=1)
    drift: float | None = Field(default=None, gt=0)

    def in_rows(self, log_ratio_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        x_BT = self(log_ratio_BT, advantage_BT)
        if self.drift is None:
            return x_BT
        length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        drift_B1 = -torch.where(mask_BT, log_ratio_BT.detach(), 0).sum(dim=1, keepdim=True) / length_B1
        return torch.where((advantage_BT < 0) & (drift_B1 > self.drift), x_BT.detach(), x_BT)

    def check_sequences(self, settings: RunSettings) -> tuple[str, ...]:
        reach = min(self.low, self.high) * settings.max_length**0.5
        if settings.updates_per_rollout == 1 or reach >= GSPO_REACH:
            return ()
        edge = 5 * GSPO_REACH / settings.max_length**0.5
        return (
            f"surrogate {self.kind!r}: edges of {self.low:g} and {self.high:g} on a mean over tokens are for responses "
            f"of thousands of tokens. Here they have at most {settings.max_length}, and most of them will be clipped "
            f"(see clip_fraction): widen them, for instance surrogate.low={edge:.1g},surrogate.high={edge:.1g}",
        )

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        ratio_BT = ratio(log_ratio_BT)
        clipped_BT = ratio_BT.clamp(1 - self.low, 1 + self.high)
        bound_BT = torch.minimum(ratio_BT * advantage_BT, clipped_BT * advantage_BT)
        if self.dual is None:
            return bound_BT
        return torch.where(advantage_BT < 0, torch.maximum(bound_BT, self.dual * advantage_BT), bound_BT)


class ClippedWeight(Surrogate, kind="clipped_weight"):
    """sg(w) A log pi with w = clip(r, floor, cap): every token keeps a gradient, its weight is bounded.

    Both bounds are absolute (TRL's meaning; verl writes 1 - low and 1 + high). MiniMax-M1 uses no floor and does not
    say its cap; 5 is what TRL gives for ScaleRL (2510.13786). The value shown is w A, which has this gradient.
    """

    shown: ClassVar[tuple[str, ...]] = ("floor", "cap")
    clips: ClassVar[bool] = True

    floor: float = Field(default=0.0, ge=0)
    cap: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> ClippedWeight:
        if self.floor >= self.cap:
            raise ValueError(f"clipped_weight: floor {self.floor:g} must be below cap {self.cap:g}")
        return self

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        weight_BT = ratio(log_ratio_BT.detach()).clamp(self.floor, self.cap)
        return weight_BT * advantage_BT * (log_ratio_BT - log_ratio_BT.detach()).exp()


class SoftGate(Surrogate, kind="soft_gate"):
    """4 / tau sigmoid(tau (r - 1)) A: a clip without an edge (SAPO, 2511.20347).

    The gradient fades smoothly on both sides of r = 1, where its slope is A. `positive` is tau where A > 0, `negative`
    elsewhere; the larger one fades faster. The defaults are the paper's (section 5.1).
    """

    shown: ClassVar[tuple[str, ...]] = ("positive", "negative")
    clips: ClassVar[bool] = True

    positive: float = Field(default=1.0, gt=0)
    negative: float = Field(default=1.05, gt=0)

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        tau_BT = torch.full_like(advantage_BT, self.negative).masked_fill(advantage_BT > 0, self.positive)
        return torch.sigmoid(tau_BT * (ratio(log_ratio_BT) - 1)) * 4 / tau_BT * advantage_BT


class Log(Surrogate, kind="log"):
    """log(r) A: the gradient is A grad log pi at every ratio.

    Where the old log-prob is 0 (a demonstration, which its author gave probability 1) it is A log pi, the
    log-likelihood. At other ratios it is the policy gradient without a correction for them.
    """

    clips: ClassVar[bool] = True

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return log_ratio_BT * advantage_BT


class GeometricMean(Surrogate, kind="geometric_mean"):
    """exp(mean_t c_t) A: the geometric mean of a response's ratios, each clipped first, in logs and on one side.

    c_t = min(log r_t, high) where A > 0, max(log r_t, -low) where A < 0 (GMPO, 2507.20673, whose
    defaults these are). Like the ratio `sequence`, it has its value at every token and each token's own gradient: with
    `sequence_mean` and an advantage that is constant in the response, exactly that of the mean over responses. A
    clipped token loses its own gradient, but its ratio stays in the mean.
    """

    shown: ClassVar[tuple[str, ...]] = ("low", "high")
    clips: ClassVar[bool] = True

    low: float = Field(default=0.4, ge=0)
    high: float = Field(default=0.4, ge=0)

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        """Of responses of one token each."""
        return ratio(self._clipped(log_ratio_BT, advantage_BT)) * advantage_BT

    def in_rows(self, log_ratio_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        clipped_BT = torch.where(mask_BT, self._clipped(log_ratio_BT, advantage_BT), 0)
        length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        mean_B1 = clipped_BT.detach().sum(dim=1, keepdim=True) / length_B1
        return ratio(clipped_BT - clipped_BT.detach() + mean_B1) * advantage_BT

    def _clipped(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        good_BT, bad_BT = log_ratio_BT.clamp(max=self.high), log_ratio_BT.clamp(min=-self.low)
        return torch.where(advantage_BT > 0, good_BT, torch.where(advantage_BT < 0, bad_BT, log_ratio_BT))
