"""Surrogates that scale each token's score by a weight without gradient: sg(w) A log pi.

    tapered        w = 1 where A >= 0, min(r, 1) where A < 0                       TOPR, 2503.14286
    gamma_weight   w = e^lambda r^k e^(-lambda r), k and lambda by the sign of A   VESPO, 2602.10693
    preserving     w = r inside the clip; beta_high (1+high) above it where A > 0, beta_low (1-low) below it where A < 0
                                                                                   CE-GPPO, 2509.20712
    flipped        w = 1/r up to a cap where A > 0, r where A < 0; 0 where a clip acts    ASPO, 2510.06062
    divergence     w = min(r, cap), 0 where pi - old > high and A > 0, or old - pi > low and A < 0
                                                                                   DPPO, 2602.04879

The value shown is w A, as for `clipped_weight`, which has this gradient.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from objectives.parts.surrogate import LOG_RATIO_MAX, Surrogate, ratio


def with_weight(weight_BT: Tensor, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
    """sg(w) A times a factor of value 1 whose gradient is that of log pi."""
    return weight_BT.detach() * advantage_BT * (log_ratio_BT - log_ratio_BT.detach()).exp()


class Tapered(Surrogate, kind="tapered"):
    """Weight 1 for good responses at every ratio, min(r, 1) for bad ones: learning from a bad response ends as it
    becomes unlikely (TOPR, 2503.14286). Meant for ratio `response`."""

    clips: ClassVar[bool] = True

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        tapered_BT = log_ratio_BT.clamp(max=0).exp()
        weight_BT = torch.where(advantage_BT < 0, tapered_BT, torch.ones_like(tapered_BT))
        return with_weight(weight_BT, log_ratio_BT, advantage_BT)


class GammaWeight(Surrogate, kind="gamma_weight"):
    """w = e^lambda r^k e^(-lambda r): 1 at r = 1, fading on both sides like the density of a gamma distribution (VESPO,
    2602.10693). Meant for ratio `response`; log r is held within log 1e-8 and 20, as TRL does."""

    shown: ClassVar[tuple[str, ...]] = ("k_positive", "lambda_positive", "k_negative", "lambda_negative")
    clips: ClassVar[bool] = True

    k_positive: float = Field(default=2.0, gt=0)
    lambda_positive: float = Field(default=3.0, gt=0)
    k_negative: float = Field(default=3.0, gt=0)
    lambda_negative: float = Field(default=2.0, gt=0)

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        good_BT = advantage_BT >= 0
        k_BT = torch.full_like(advantage_BT, self.k_negative).masked_fill(good_BT, self.k_positive)
        lambda_BT = torch.full_like(advantage_BT, self.lambda_negative).masked_fill(good_BT, self.lambda_positive)
        held_BT = log_ratio_BT.detach().clamp(-18.420680743952367, LOG_RATIO_MAX)
        weight_BT = (lambda_BT + k_BT * held_BT - lambda_BT * held_BT.exp()).exp()
        return with_weight(weight_BT, log_ratio_BT, advantage_BT)


class Preserving(Surrogate, kind="preserving"):
    """PPO's clip whose clipped tokens keep a bounded gradient: that of the edge, times `beta_high` where A > 0 and r is
    above it, times `beta_low` where A < 0 and r is below it (CE-GPPO, 2509.20712). At betas of 0 it is the clip."""

    shown: ClassVar[tuple[str, ...]] = ("low", "high", "beta_low", "beta_high")
    clips: ClassVar[bool] = True

    low: float = Field(default=0.2, ge=0, lt=1)
    high: float = Field(default=0.2, ge=0)
    beta_low: float = Field(default=0.5, ge=0)
    beta_high: float = Field(default=1.0, ge=0)

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        ratio_BT = ratio(log_ratio_BT.detach())
        above_BT = (advantage_BT > 0) & (ratio_BT > 1 + self.high)
        below_BT = (advantage_BT < 0) & (ratio_BT < 1 - self.low)
        weight_BT = ratio_BT.masked_fill(above_BT, self.beta_high * (1 + self.high))
        weight_BT = weight_BT.masked_fill(below_BT, self.beta_low * (1 - self.low))
        return with_weight(weight_BT, log_ratio_BT, advantage_BT)


class Flipped(Surrogate, kind="flipped"):
    """The inverse ratio where A > 0, with weight min(1/r, cap): a good token that became unlikely gets more weight, not
    less (ASPO, 2510.06062). Tokens that PPO's clip would stop have no gradient."""

    shown: ClassVar[tuple[str, ...]] = ("low", "high", "cap")
    clips: ClassVar[bool] = True

    low: float = Field(default=0.2, ge=0, lt=1)
    high: float = Field(default=0.2, ge=0)
    cap: float = Field(default=3.0, ge=1)

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        ratio_BT = ratio(log_ratio_BT.detach())
        turned_BT = ratio(-log_ratio_BT.detach()).clamp(max=self.cap)
        weight_BT = torch.where(advantage_BT > 0, turned_BT, ratio_BT)
        stopped_BT = ((advantage_BT > 0) & (ratio_BT > 1 + self.high)) | (
            (advantage_BT < 0) & (ratio_BT < 1 - self.low)
        )
        return with_weight(weight_BT.masked_fill(stopped_BT, 0), log_ratio_BT, advantage_BT)


class Divergence(Surrogate, kind="divergence"):
    """A trust region in probability, not in ratio: a token has no gradient where its probability has moved further than
    `high` up (A > 0) or `low` down (A < 0), its part of the total variation (DPPO, 2602.04879). A clip on ratios stops
    rare tokens after tiny changes and lets likely ones move far. The weight is min(r, cap). Meant for ratio `token`.
    """

    shown: ClassVar[tuple[str, ...]] = ("low", "high")
    clips: ClassVar[bool] = True

    low: float = Field(default=0.2, gt=0, lt=1)
    high: float = Field(default=0.2, gt=0, lt=1)
    cap: float = Field(default=20.0, ge=1)

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        """The surrogate of tokens so rare that no move exceeds the bounds."""
        return with_weight(ratio(log_ratio_BT.detach()).clamp(max=self.cap), log_ratio_BT, advantage_BT)

    def of_tokens(self, log_ratio_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, old_logp_BT: Tensor) -> Tensor:
        moved_BT = (old_logp_BT + log_ratio_BT.detach()).clamp(max=0).exp() - old_logp_BT.exp()
        stopped_BT = ((advantage_BT > 0) & (moved_BT > self.high)) | ((advantage_BT < 0) & (-moved_BT > self.low))
        weight_BT = ratio(log_ratio_BT.detach()).clamp(max=self.cap).masked_fill(stopped_BT, 0)
        return with_weight(weight_BT, log_ratio_BT, advantage_BT)
