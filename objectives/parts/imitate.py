"""An extra cost beside the surrogate: minus the log-likelihood of responses that are right (VAPO, 2504.05118).

    positive_likelihood    coef / N+  sum over right responses i  sum_t -log pi(y_it),    N+ = tokens of these responses

No ratio, no advantage, no clip: supervised learning on the policy's own right responses. It still trains on correct
responses when the whole group is correct and the advantage is 0, and weighs each more when few are correct.
N+ is counted over the whole optimizer step, so `weigh` is called once, like `Aggregate`, and micro-batches add up.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from advantages import Need, Part


class Imitation(Part):
    """Family: (accuracy_B, mask_BT) -> share_BT, once per step; then (logp_BT, share_BT) -> cost_BT, to be minimized.

    Shares are 0 outside the mask. The cost is added to the loss without the weights of `aggregate`.
    """

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.ACCURACY})

    def weigh(self, accuracy_B: Tensor, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weigh the tokens of one whole optimizer step; `accuracy_B` is the task's verdict, 1 for right."""
        raise TypeError(f"{type(self).__name__} does not define weigh")

    def __call__(self, logp_BT: Tensor, share_BT: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")


class PositiveLikelihood(Imitation, kind="positive_likelihood"):
    """coef times the mean of -log pi over the tokens of right responses; 0 in a step without one."""

    shown: ClassVar[tuple[str, ...]] = ("coef",)

    coef: float = Field(default=0.1, gt=0)

    def weigh(self, accuracy_B: Tensor, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        right_BT = mask_BT & (accuracy_B > 0.5)[:, None]
        return right_BT.to(dtype) / right_BT.sum().clamp(min=1)

    def __call__(self, logp_BT: Tensor, share_BT: Tensor) -> Tensor:
        return -self.coef * share_BT * logp_BT
