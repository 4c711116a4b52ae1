"""The learning rate over a run."""

from __future__ import annotations

import math

from rlzoo.config.run import OptimizerSettings


def rate_factor(settings: OptimizerSettings, step: int, steps: int) -> float:
    """Return the factor on the learning rate at a step of a run of `steps` steps: warm-up, then the schedule."""
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    if settings.schedule == "linear":
        return 1 - progress
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0
