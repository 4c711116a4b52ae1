"""Per-token costs beside the surrogate: KL to the reference, the critic's loss, the entropy bonus.

With D = log pi - log ref at the sampled token (Schulman 2020, "Approximating KL divergence"):

    k1 = D        k2 = D^2 / 2        k3 = exp(-D) - 1 + D

Used as losses, their gradients are not the gradient of the divergence that they estimate. At tokens drawn from pi, with
the visited states fixed, the expected gradient of k1 is 0, of k2 that of KL(pi || ref), of k3 that of KL(ref || pi).
`straight_through` keeps the value and takes k2's gradient (verl's suffix "+"). `correction` multiplies the cost f by a
weight w through which the gradient flows too, so that it becomes w (grad f + f grad log pi), the gradient of E[f]:

    score    pi / sg(pi)     value f; exact at tokens drawn from pi itself         (NeMo RL)
    ratio    the row's r     value r f; with token ratios exact off-policy too     (TRL, `use_bias_correction_kl`)
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages import Need, Part, RolloutView
from objectives.parts.surrogate import ratio

LOG_RATIO_BOUND = 20.0
"""D is clamped to +-20 so that exp(-D) stays finite (as in verl). Beyond it the gradient is 0, so a policy that has
drifted that far from the reference is no longer pulled back."""


class KL(Part):
    """Family: (logp_BT, ref_logp_BT, weight_BT) -> cost_BT, to be minimized; `coef` included.

    The reference's log-probs are the batch's field `anchor`. `weight_BT` is the result of `weight()`; None unless
    `correction` is set.
    """

    shown: ClassVar[tuple[str, ...]] = ("coef",)
    anchor: ClassVar[str] = "ref_logp_BT"

    coef: float = Field(default=0.04, ge=0)
    bound: float | None = Field(default=None, gt=0)
    """The weighted estimate of a token is clamped to +-bound, before `coef`; beyond it the gradient is 0."""
    correction: Literal["none", "score", "ratio"] = "none"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.REF_LOGP})

    def weight(self, logp_BT: Tensor, log_ratio_BT: Tensor) -> Tensor | None:
        """The weight that `correction` names, with its gradient; `log_ratio_BT` is what the surrogate sees."""
        if self.correction == "none":
            return None
        return ratio(log_ratio_BT if self.correction == "ratio" else logp_BT - logp_BT.detach())

    def _bounded(self, estimate_BT: Tensor, weight_BT: Tensor | None) -> Tensor:
        weighted_BT = estimate_BT if weight_BT is None else estimate_BT * weight_BT
        return weighted_BT if self.bound is None else weighted_BT.clamp(-self.bound, self.bound)

    def __call__(self, logp_BT: Tensor, ref_logp_BT: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")


def _log_ratio(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    return (logp_BT - ref_logp_BT).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def k3(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """exp(-D) - 1 + D, never negative."""
    log_ratio_BT = _log_ratio(logp_BT, ref_logp_BT)
    return torch.expm1(-log_ratio_BT) + log_ratio_BT


def k2(logp_BT: Tensor, ref_logp_BT: Tensor) -> Tensor:
    """D^2 / 2."""
    return _log_ratio(logp_BT, ref_logp_BT).square() / 2


def _with_gradient_of(value_BT: Tensor, other_BT: Tensor) -> Tensor:
    return value_BT.detach() + (other_BT - other_BT.detach())


Estimate = TypeVar("Estimate", bound=KL)


def _one_gradient(part: Estimate, straight_through: bool) -> Estimate:
    if straight_through and part.correction != "none":
        raise ValueError(
            f"kl {part.kind!r}: straight_through has the gradient of KL(pi || ref) already, and correction="
            f"{part.correction!r} would add another: keep one of the two"
        )
    return part


class K1(KL, kind="k1"):
    """D. Unbiased in value, but its gradient is 0 in expectation: as a loss it adds noise unless `straight_through`."""

    straight_through: bool = False

    @model_validator(mode="after")
    def _once(self) -> Self:
        return _one_gradient(self, self.straight_through)

    def __call__(self, logp_BT: Tensor, ref_logp_BT: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        cost_BT = self._bounded(_log_ratio(logp_BT, ref_logp_BT), weight_BT)
        if self.straight_through:
            cost_BT = _with_gradient_of(cost_BT, k2(logp_BT, ref_logp_BT))
        return self.coef * cost_BT


class K2(KL, kind="k2"):
    """D^2 / 2. Biased in value; its gradient is that of KL(pi || ref) at each visited state."""

    def __call__(self, logp_BT: Tensor, ref_logp_BT: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        return self.coef * self._bounded(k2(logp_BT, ref_logp_BT), weight_BT)


class K3(KL, kind="k3"):
    """exp(-D) - 1 + D (GRPO, 2402.03300, equation 4). Unbiased in value; its gradient is that of KL(ref || pi)."""

    straight_through: bool = False

    @model_validator(mode="after")
    def _once(self) -> Self:
        return _one_gradient(self, self.straight_through)

    def __call__(self, logp_BT: Tensor, ref_logp_BT: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        cost_BT = self._bounded(k3(logp_BT, ref_logp_BT), weight_BT)
        if self.straight_through:
            cost_BT = _with_gradient_of(cost_BT, k2(logp_BT, ref_logp_BT))
        return self.coef * cost_BT


class ValueLoss(Part):
    """Family: (value_BT, old_value_BT, return_BT) -> cost_BT, to be minimized; `coef` included."""

    shown: ClassVar[tuple[str, ...]] = ("coef",)

    coef: float = Field(default=0.5, gt=0)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.VALUE})

    def __call__(self, value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")


class PlainValueLoss(ValueLoss, kind="plain"):
    """coef * (V - R)^2 / 2 (1707.06347, equation 9, which has no 1/2)."""

    def __call__(self, value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor) -> Tensor:
        return self.coef * (value_BT - return_BT).square() / 2


class ClippedValueLoss(ValueLoss, kind="clipped"):
    """coef * max((V - R)^2, (clip(V, old +- range) - R)^2) / 2. From code (OpenAI baselines), in no paper."""

    shown: ClassVar[tuple[str, ...]] = ("coef", "range")

    range: float = Field(default=0.2, gt=0)

    def __call__(self, value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor) -> Tensor:
        clipped_BT = old_value_BT + (value_BT - old_value_BT).clamp(-self.range, self.range)
        worse_BT = torch.maximum((value_BT - return_BT).square(), (clipped_BT - return_BT).square())
        return self.coef * worse_BT / 2


class Entropy(Part):
    """Family: entropy_BT -> cost_BT, to be minimized."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.ENTROPY})

    def __call__(self, entropy_BT: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")


class EntropyBonus(Entropy, kind="bonus"):
    """-coef * H (1707.06347, equation 9; 0.01 there, on Atari)."""

    shown: ClassVar[tuple[str, ...]] = ("coef",)

    coef: float = Field(default=0.01, gt=0)

    def __call__(self, entropy_BT: Tensor) -> Tensor:
        return -self.coef * entropy_BT


class AdaptiveBonus(Entropy, kind="adaptive"):
    """-alpha H; alpha begins at 0 and moves by `rate` after each rollout: up if the entropy of the sampled tokens was
    below `target`, down if above, never below 0 (Skywork-OR1, 2505.22312).
    """

    shown: ClassVar[tuple[str, ...]] = ("target",)

    target: float = Field(default=0.2, gt=0)
    rate: float = Field(default=0.005, gt=0)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.ENTROPY, Need.LOGP})

    def initial_state(self) -> float:
        return 0.0

    def next_state(self, state: float, view: RolloutView) -> float:
        if not view.mask_NT.any():
            return state
        low = float(-view.logp_NT[view.mask_NT].mean()) < self.target
        return max(0.0, state + (self.rate if low else -self.rate))

    def state_metrics(self, state: float) -> dict[str, float]:
        return {"entropy_coef": state}

    def __call__(self, entropy_BT: Tensor) -> Tensor:
        return -self.state * entropy_BT
