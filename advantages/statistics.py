"""Masked and grouped statistics shared by the estimators.

A fully masked row is treated as absent: it enters no mean, deviation or count, and its advantage is 0. (A response
whose reward is unknown is masked this way.)
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

WHITEN_EPS = 1e-8
"""Added to the variance before the root, as in verl's masked_whiten."""


def whiten(x_NT: Tensor, mask_NT: Tensor, ddof: int = 1) -> Tensor:
    """Shift and scale the tokens inside the mask to mean 0 and variance 1; 0 outside.

    `ddof` 1 takes the unbiased variance (n-1), as verl; 0 the population's (n), as OpenRLHF. A single token has no
    spread and becomes 0.
    """
    count = mask_NT.sum()
    mean = torch.where(mask_NT, x_NT, 0).sum() / count.clamp(min=1)
    centred_NT = torch.where(mask_NT, x_NT - mean, 0)
    variance = centred_NT.square().sum() / (count - ddof).clamp(min=1)
    return centred_NT * torch.rsqrt(variance + WHITEN_EPS)


def group_sum(x_N: Tensor, group_N: Tensor) -> Tensor:
    """Sum over the rows that share a group id, returned at every row: [N] -> [N]."""
    index_N = _index(group_N)
    return torch.zeros_like(x_N).index_add(0, index_N, x_N)[index_N]


def group_spread(x_N: Tensor, valid_N: Tensor, group_N: Tensor) -> Tensor:
    """Largest minus smallest valid value of each row's group, returned at every row; -inf where the group has none."""
    index_N = _index(group_N)
    bottom_N = torch.full_like(x_N, -torch.inf)
    top_N, floor_N = (
        bottom_N.scatter_reduce(0, index_N, torch.where(valid_N, signed_N, -torch.inf), "amax")[index_N]
        for signed_N in (x_N, -x_N)
    )
    return top_N + floor_N


def _index(group_N: Tensor) -> Tensor:
    """Group ids, which may be any integers in any order, as 0, 1, 2, ..."""
    return cast("Tensor", torch.unique(group_N, return_inverse=True)[1])
