"""Policies that have left the sampler: in a random direction of their logits, or along the true gradient, by a KL."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.situation import Situation


def drifted(at: Situation, kl: float, seed: int) -> Situation:
    """The policy moved in a normal random direction until KL(old || policy) is `kl` nats per response, to 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    return _moved(at, torch.randn(at.logits_SV.shape, generator=generator, dtype=torch.float64), kl)


def climbed(at: Situation, kl: float) -> Situation:
    """The policy moved along the true gradient of the old one until KL(old || policy) is `kl` nats, to 1e-6."""
    return _moved(at, exact.logits_gradient(at.old_logits_SV, at.space, at.reward_R), kl)


def _moved(at: Situation, direction_SV: Tensor, kl: float) -> Situation:
    """Bisection on the length of the step; KL grows along every ray near the old policy."""
    low, high = 0.0, 1.0 / direction_SV.norm().item()

    def reached(length: float) -> float:
        return exact.kl_divergence(at.old_logits_SV, at.old_logits_SV + length * direction_SV, at.space).item()

    while reached(high) < kl:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < kl else (low, middle)
    return replace(at, logits_SV=at.old_logits_SV + high * direction_SV)
