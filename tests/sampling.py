"""Sampling from adapters that a test has as vectors: the sampler knows policies by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rlzoo.engine import sampler
from rlzoo.engine.protocol import BASE, PolicyRef, SampleRequest, Samples
from rlzoo.model.backbone import Backbone

THETAS: dict[PolicyRef, Tensor] = {}
"""Every adapter that was named."""


def named(theta: Tensor | None) -> PolicyRef:
    """The name of an adapter; None is the base model."""
    if theta is None:
        return BASE
    for policy, known in THETAS.items():
        if known is theta:
            return policy
    policy = PolicyRef(f"adapter {len(THETAS)}", 1)
    THETAS[policy] = theta
    return policy


def sample(backbone: Backbone, requests: Sequence[SampleRequest], max_rows: int = 4096) -> list[Samples]:
    """`rlzoo.engine.sampler.sample` with the adapters that were named."""
    return sampler.sample(backbone, requests, max_rows, THETAS)
