"""Sampler mismatch: the tokens were drawn by a sampler whose probabilities differ from the trainer's.

Three policies: pi is being trained, old is the trainer's own at the start of the rollout, sampler drew the tokens (the
same weights, but other kernels, precision or quantization). Ratios compare pi with old; a correction multiplies each
token's objective by old / sampler, without a gradient (truncated importance sampling):

    token       w_t = min(old_t / sampler_t, cap)            less variance; biased, as it ignores the path to the token
    sequence    w   = min(old(y) / sampler(y), cap)          at every token of y; unbiased without a cap

`beyond = "mask"` sets weights above the cap to 0 instead of the cap.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages import Need, Part
from objectives.parts.surrogate import ratio


class Correction(Part):
    """Family: (old_logp_BT, sampler_logp_BT, mask_BT) -> weight_BT, a factor on the surrogate.

    Members define `log_weight`. The default cap is verl's; TRL's code has 3 and masks whole sequences.
    """

    shown: ClassVar[tuple[str, ...]] = ("cap",)

    floor: float | None = Field(default=None, gt=0, le=1)
    """Weights below it become 0 (IcePop, 2510.18855: token weights outside [0.5, 5] are masked); None: none is low."""
    cap: float | None = Field(default=2.0, ge=1)
    """None: the full importance weight."""
    beyond: Literal["truncate", "mask"] = "truncate"
    """What happens to weights above the cap: they become the cap, or 0."""

    @model_validator(mode="after")
    def _capped(self) -> Self:
        if self.cap is None and self.beyond == "mask":
            raise ValueError(f"correction {self.kind!r}: beyond does nothing without a cap: set cap, or leave it out")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.SAMPLER_LOGP})

    def log_weight(self, old_logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log of the full importance weight, [B, T]."""
        raise TypeError(f"{type(self).__name__} does not define log_weight")

    def __call__(self, old_logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        weight_BT = ratio(self.log_weight(old_logp_BT, sampler_logp_BT, mask_BT))
        if self.floor is not None:
            weight_BT = torch.where(weight_BT < self.floor, 0.0, weight_BT)
        if self.cap is None:
            return weight_BT
        return torch.where(weight_BT > self.cap, self.cap if self.beyond == "truncate" else 0.0, weight_BT)


class TokenCorrection(Correction, kind="token"):
    """min(old_t / sampler_t, cap), token by token."""

    def log_weight(self, old_logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.where(mask_BT, old_logp_BT - sampler_logp_BT, 0)


class SequenceCorrection(Correction, kind="sequence"):
    """min(old(y) / sampler(y), cap), one weight per response: the product over its tokens, not their mean."""

    def log_weight(self, old_logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        sum_B1 = torch.where(mask_BT, old_logp_BT - sampler_logp_BT, 0).sum(dim=1, keepdim=True)
        return sum_B1.expand_as(old_logp_BT)


class GeometricCorrection(Correction, kind="geometric"):
    """exp(mean_t log(old_t / sampler_t)), one weight per response: the geometric mean of its tokens' weights, which
    does not grow with length. With a floor, a cap close to 1 and `beyond=mask` it rejects responses that drifted, as
    verl's geometric rejection."""

    def log_weight(self, old_logp_BT: Tensor, sampler_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        gap_BT = torch.where(mask_BT, old_logp_BT - sampler_logp_BT, 0)
        mean_B1 = gap_BT.sum(dim=1, keepdim=True) / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        return mean_B1.expand_as(old_logp_BT)
