"""Masked and grouped statistics shared by the estimators.

One rule for rows: a fully masked row is not in the batch. It enters no mean, no deviation and no count, and its
advantage is 0. (A response whose reward is unknown is masked this way.)
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITEN_EPS = 1e-8
"""Added to the variance before the root, as in verl's masked_whiten."""


def whiten(x_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Shift and scale the tokens inside the mask to mean 0 and variance 1; 0 outside.

    The variance is the unbiased one (n-1), as in verl; a single token has no spread and becomes 0.
    """
    count = mask_NT.sum()
    mean = torch.where(mask_NT, x_NT, 0).sum() / count.clamp(min=1)
    centred_NT = torch.where(mask_NT, x_NT - mean, 0)
    variance = centred_NT.square().sum() / (count - 1).clamp(min=1)
    return centred_NT * torch.rsqrt(variance + WHITEN_EPS)


def group_sum(x_N: Tensor, group_N: Tensor) -> Tensor:
    """Sum over the rows that share a group id, returned at every row: [N] -> [N]."""
    _, index_N = torch.unique(group_N, return_inverse=True)
    total = x_N.new_zeros(int(index_N.max()) + 1 if index_N.numel() else 0)
    return total.index_add(0, index_N, x_N)[index_N]


def group_extreme(x_N: Tensor, valid_N: Tensor, group_N: Tensor) -> Tensor:
    """Largest valid value of each row's group, returned at every row; -inf where the group has none."""
    _, index_N = torch.unique(group_N, return_inverse=True)
    top = x_N.new_full((int(index_N.max()) + 1 if index_N.numel() else 0,), -torch.inf)
    filled_N = torch.where(valid_N, x_N, -torch.inf)
    return top.scatter_reduce(0, index_N, filled_N, "amax")[index_N]
