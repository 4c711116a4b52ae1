"""Policies at a given KL(old || policy) from the sampler, in a random direction or along the true gradient."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.situation import Situation


def drifted(at: Situation, kl: float, seed: int) -> Situation:
    """Return the situation with its policy moved in a normal random direction until KL(old || policy) is `kl`.

    Args:
        kl: nats per response, reached to 1e-6.
    """
    generator = torch.Generator().manual_seed(seed)
    return _moved(at, torch.randn(at.logits_SV.shape, generator=generator, dtype=torch.float64), kl)


def climbed(at: Situation, kl: float) -> Situation:
    """The same along the true gradient at the old policy."""
    return _moved(at, exact.logits_gradient(at.old_logits_SV, at.space, at.reward_R), kl)


def _moved(at: Situation, direction_SV: Tensor, kl: float) -> Situation:
    """Find the length of the step by bisection: near the old policy, KL grows along every ray."""
    low, high = 0.0, 1.0 / direction_SV.norm().item()

    def reached(length: float) -> float:
        return exact.kl_divergence(at.old_logits_SV, at.old_logits_SV + length * direction_SV, at.space).item()

    while reached(high) < kl:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < kl else (low, middle)
    return replace(at, logits_SV=at.old_logits_SV + high * direction_SV)
