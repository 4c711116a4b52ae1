"""A clip whose edges depend on the token's position t in its response, from 1: tokens that the policy chose count.

position_clip    min(r A, clip(r, e^(-low t^power), e^(high t^power)) A),   at A < 0 at least e^(dual t^power) A
                                                                            CTPO, 2605.07331
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from objectives.parts.surrogate import Surrogate, ratio


class PositionClip(Surrogate, kind="position_clip"):
    """PPO's clip in logs, with edges that grow like t^power. Meant for ratio `prefix`, whose logarithm spreads like the
    root of t; there power is 1/2. `dual` bounds the other side of A < 0 in the same way; None is off."""

    shown: ClassVar[tuple[str, ...]] = ("low", "high")
    clips: ClassVar[bool] = True

    low: float = Field(default=0.025, gt=0)
    high: float = Field(default=0.05, gt=0)
    dual: float | None = Field(default=0.05, gt=0)
    power: float = 0.5

    def __call__(self, log_ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        """Of first tokens."""
        return self._bounded(log_ratio_BT, advantage_BT, torch.ones_like(log_ratio_BT))

    def in_rows(self, log_ratio_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        position_BT = mask_BT.cumsum(dim=1).clamp(min=1).to(log_ratio_BT.dtype)
        return self._bounded(log_ratio_BT, advantage_BT, position_BT**self.power)

    def _bounded(self, log_ratio_BT: Tensor, advantage_BT: Tensor, scale_BT: Tensor) -> Tensor:
        held_BT = torch.minimum(torch.maximum(log_ratio_BT, -self.low * scale_BT), self.high * scale_BT)
        bound_BT = torch.minimum(ratio(log_ratio_BT) * advantage_BT, ratio(held_BT) * advantage_BT)
        if self.dual is None:
            return bound_BT
        worst_BT = (self.dual * scale_BT).exp() * advantage_BT
        return torch.where(advantage_BT < 0, torch.maximum(bound_BT, worst_BT), bound_BT)
