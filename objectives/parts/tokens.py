"""Special handling of the tokens that reduce entropy most, chosen once per optimizer step.

A natural-gradient step changes a state's entropy by about -Cov(log pi, A), a policy-gradient step by about
-Cov(log pi, pi A), covariances over the tokens that pi could choose there (2505.22617, theorems 2 and 1); a few sampled
tokens carry most of the first one. With means over the N tokens of the step, token t contributes

    cov_t = (log pi_t - mean log pi) (A_t - mean A)

clip_cov    share N of the tokens with low < cov_t < high lose their gradient
top_entropy all but the share N of the tokens with the highest entropy lose their gradient   2506.01939
kl_cov      the share N tokens with the largest cov_t pay coef |log (pi_t / old_t)|

The means and the choice run over a whole optimizer step, so `choose` is called once, like `Aggregate`, and
micro-batches add up. Deviation: the authors' code uses the current policy's log pi in each micro-batch; here it is the
sampling policy's, which is known before the step and does not depend on how the step is divided.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages import Need, Part


class Tokens(Part):
    """Family: (old_logp_BT, advantage_BT, mask_BT) -> chosen_BT (bool), once per step; then it treats these tokens."""

    clips: ClassVar[bool] = False
    """True if the treatment has no effect where every ratio is 1."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.LOGP})

    def choose(self, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Choose tokens of one whole optimizer step, all inside the mask. A member with the need "entropy" is called
        with `entropy_BT` too."""
        raise TypeError(f"{type(self).__name__} does not define choose")

    def __call__(self, gain_BT: Tensor, log_ratio_BT: Tensor, chosen_BT: Tensor) -> Tensor:
        """The per-token objective, to be maximized, from the surrogate's value `gain_BT`."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


def covariance(old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Each token's contribution to the covariance of log-prob and advantage, 0 outside the mask."""
    count = mask_BT.sum().clamp(min=1)
    inside = [torch.where(mask_BT, x_BT, 0) for x_BT in (old_logp_BT, advantage_BT)]
    logp_BT, centred_BT = (x_BT - x_BT.sum() / count for x_BT in inside)
    return torch.where(mask_BT, logp_BT * centred_BT, 0)


class ClipCov(Tokens, kind="clip_cov"):
    """Tokens whose covariance lies between `low` and `high` lose their gradient: a share of all tokens, at least one.

    The authors' code draws them at random among those between the bounds; here they are a systematic sample: equally
    spaced in the order of their covariance, which needs no random numbers and covers the same range. Defaults: verl.
    """

    shown: ClassVar[tuple[str, ...]] = ("share", "low", "high")

    share: float = Field(default=2e-4, gt=0, le=1)
    low: float = 1.0
    high: float = 5.0

    @model_validator(mode="after")
    def _ordered(self) -> ClipCov:
        if self.low >= self.high:
            raise ValueError(f"clip_cov: low {self.low:g} must be below high {self.high:g}")
        return self

    def choose(self, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        cov_BT = covariance(old_logp_BT, advantage_BT, mask_BT)
        place_C = (mask_BT & (cov_BT > self.low) & (cov_BT < self.high)).flatten().nonzero().squeeze(1)
        place_C = place_C[cov_BT.flatten()[place_C].argsort()]
        count = min(_count(self.share, mask_BT), len(place_C))
        middle = (torch.arange(count, device=place_C.device) * 2 + 1) * len(place_C) // max(2 * count, 1)
        return _marked(place_C[middle], mask_BT)

    def __call__(self, gain_BT: Tensor, log_ratio_BT: Tensor, chosen_BT: Tensor) -> Tensor:
        return torch.where(chosen_BT, gain_BT.detach(), gain_BT)


class TopEntropy(Tokens, kind="top_entropy"):
    """Only the `share` of the step's tokens that were drawn from the widest distributions are learned from ("beyond the
    80/20 rule", 2506.01939). The others stay in the loss's denominator, as in TRL's `top_entropy_quantile`."""

    shown: ClassVar[tuple[str, ...]] = ("share",)

    share: float = Field(default=0.2, gt=0, lt=1)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.LOGP, Need.ENTROPY})

    def choose(
        self, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None
    ) -> Tensor:
        if entropy_BT is None:
            raise ValueError("tokens 'top_entropy' needs entropy_BT, the entropy each token was drawn with")
        if not mask_BT.any():
            return torch.zeros_like(mask_BT)
        edge = entropy_BT[mask_BT].quantile(1 - self.share)
        return mask_BT & (entropy_BT < edge)

    def __call__(self, gain_BT: Tensor, log_ratio_BT: Tensor, chosen_BT: Tensor) -> Tensor:
        return torch.where(chosen_BT, gain_BT.detach(), gain_BT)


class KLCov(Tokens, kind="kl_cov"):
    """The tokens with the largest covariance, a share of all and at least one, pay coef |log (pi / old)|.

    The absolute log-ratio is the estimate of KL(old || pi) in the authors' code. Its slope at ratio 1 is 0, so at one
    update per rollout nothing is paid. Defaults: verl.
    """

    shown: ClassVar[tuple[str, ...]] = ("share", "coef")
    clips: ClassVar[bool] = True

    share: float = Field(default=2e-4, gt=0, le=1)
    coef: float = Field(default=1.0, gt=0)

    def choose(self, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor) -> Tensor:
        cov_BT = covariance(old_logp_BT, advantage_BT, mask_BT).masked_fill(~mask_BT, -torch.inf)
        count = min(_count(self.share, mask_BT), int(mask_BT.sum()))
        return _marked(cov_BT.flatten().topk(count).indices, mask_BT)

    def __call__(self, gain_BT: Tensor, log_ratio_BT: Tensor, chosen_BT: Tensor) -> Tensor:
        return torch.where(chosen_BT, gain_BT - self.coef * log_ratio_BT.abs(), gain_BT)


def _count(share: float, mask_BT: Tensor) -> int:
    return max(int(share * int(mask_BT.sum())), 1)


def _marked(place_K: Tensor, mask_BT: Tensor) -> Tensor:
    """True at some places of the flattened batch."""
    chosen_BT = torch.zeros_like(mask_BT)
    chosen_BT.view(-1)[place_K] = True
    return chosen_BT
