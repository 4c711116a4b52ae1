"""KL to the sampling policy: PPO's penalty, its alternative to the clip (1707.06347, section 4).

    old     rho - 1 - log rho,   rho = pi / old at tokens drawn from old

Its mean over such tokens is KL(old || pi); the mean of its gradient, (rho - 1) grad log pi, is the gradient of that.
At the first update of a rollout both are 0.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from advantages import Need, RolloutView
from objectives.parts.regularize import KL, k2, k3


class OldKL(KL, kind="old"):
    """coef * (rho - 1 - log rho), which estimates KL(old || pi) of each token's distribution without bias.

    With `target` (nats per token) coef adapts after each rollout's updates to the KL that they led to: halved below
    target / 1.5, doubled above 1.5 target (1707.06347, section 4). Without it coef stays.
    """

    shown: ClassVar[tuple[str, ...]] = ("coef", "target")
    anchor: ClassVar[str] = "old_logp_BT"

    coef: float = Field(default=1.0, ge=0)
    form: Literal["k3", "k2"] = "k3"
    """k2: coef (log rho)^2 / 2 instead, the square that DRO and Kimi k1.5 (2501.12599) penalize."""
    target: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _adapts(self) -> Self:
        if self.correction != "none":
            raise ValueError("kl 'old': its tokens are the old policy's own, there is nothing to correct: leave it out")
        if self.target is not None and self.coef == 0:
            raise ValueError("kl 'old': a coef of 0 stays 0 and cannot adapt: start above 0, or leave target out")
        return self

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset() if self.target is None else frozenset({Need.LOGP, Need.NEW_LOGP})

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        coef = self.coef if self.target is None else self.state
        estimate = k3 if self.form == "k3" else k2
        return coef * self._bounded(estimate(old_logp_BT, logp_BT), None)

    def initial_state(self) -> float | None:
        return None if self.target is None else self.coef

    def next_state(self, state: float | None, view: RolloutView) -> float | None:
        if state is None or self.target is None or not view.mask_NT.any():
            return state
        kl = float(k3(view.logp_NT, view.new_logp_NT)[view.mask_NT].mean())
        if self.target / 1.5 <= kl <= self.target * 1.5:
            return state
        return state / 2 if kl < self.target else state * 2

    def state_metrics(self, state: float) -> dict[str, float]:
        return {"kl_coef": state}
