"""GAE with one lambda for the policy's advantages and another for the critic's targets.

    A_t = sum_k (gamma lambda)^k d_{t+k}         R_t = V_t + sum_k (gamma lambda_critic)^k d_{t+k}

    decoupled_gae         lambda a number                      VC-PPO 2503.01491
    length_adaptive_gae   lambda = 1 - 1 / (alpha l) for a response of l tokens          VAPO 2504.05118

At lambda_critic 1 the targets are the returns, so the critic is unbiased for any initial values; the policy's lambda
can still trade variance for bias. At lambda 0.95 a reward 100 tokens away counts 0.95^100 = 0.006.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from advantages.credit import Credit
from advantages.estimate import GAE, Advantage, credit_from_values, ddof_is_used
from advantages.needs import Need
from advantages.part import RunSettings
from advantages.view import RolloutView


class DecoupledGAE(GAE, kind="decoupled_gae"):
    """The policy's advantages at `lam`, the critic's targets at `critic_lam` (VC-PPO, 2503.01491; VAPO, 2504.05118)."""

    shown: ClassVar[tuple[str, ...]] = ("gamma", "lam", "critic_lam")

    critic_lam: float = Field(default=1.0, ge=0, le=1)

    def estimate(self, view: RolloutView) -> Credit:
        lam_N, critic_lam_N = (torch.full_like(view.reward_NT[:, 0], lam) for lam in (self.lam, self.critic_lam))
        return credit_from_values(view, self.gamma, lam_N, critic_lam_N, self.ddof if self.whiten else None)


class LengthAdaptiveGAE(Advantage, kind="length_adaptive_gae"):
    """The policy's lambda grows with the response: 1 - 1 / (alpha l), so that its reach, sum lambda^k, is alpha l.

    VAPO, 2504.05118, alpha 0.05. Where alpha l < 1 the formula is negative, and lambda is 0 (our choice). At alpha 0.05
    this is every response of up to 20 tokens, which leaves the one-step TD error. Short responses need a larger alpha:
    for lambda 0.95 at l tokens, 20 / l.
    """

    shown: ClassVar[tuple[str, ...]] = ("gamma", "alpha", "critic_lam")

    gamma: float = Field(default=1.0, ge=0, le=1)
    alpha: float = Field(default=0.05, gt=0)
    critic_lam: float = Field(default=1.0, ge=0, le=1)
    whiten: bool = True
    ddof: int = Field(default=1, ge=0, le=1)
    """Of the variance that whitens: 1 divides squares by n-1, 0 by n."""

    @model_validator(mode="after")
    def _whitens(self) -> Self:
        return ddof_is_used(self, self.whiten, self.ddof)

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.VALUE})

    def lam(self, length_N: Tensor) -> Tensor:
        """Lambda of responses of these lengths, [N]; 0 for one without a token."""
        return 1 - 1 / (self.alpha * length_N).clamp(min=1)

    def check(self, settings: RunSettings) -> tuple[str, ...]:
        if settings.max_length > 1 / self.alpha:
            return ()
        return (
            f"advantage {self.kind!r}: with alpha {self.alpha:g} lambda is 0 for responses of up to {1 / self.alpha:g} "
            f"tokens, and here none is longer than {settings.max_length}: for lambda 0.95 at that length set "
            f"advantage.alpha={20 / settings.max_length:.2g}",
        )

    def estimate(self, view: RolloutView) -> Credit:
        lam_N = self.lam(view.mask_NT.sum(dim=1).to(view.reward_NT.dtype))
        critic_lam_N = torch.full_like(lam_N, self.critic_lam)
        return credit_from_values(view, self.gamma, lam_N, critic_lam_N, self.ddof if self.whiten else None)
