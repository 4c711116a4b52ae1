"""Moments of estimators that use one response.

    g(y) = sum_t c_t(y) grad log pi(y_t | s_t),   y ~ law

The average of n independent responses has the same mean and 1/n of the variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.lab.situation import Situation


@dataclass(frozen=True)
class Single:
    """Moments of an estimator, relative to a target gradient.

    Attributes:
        mean_SV: expected gradient in the logits.
        bias: |mean - target|^2 / |target|^2.
        variance: tr Cov / |target|^2.
        cosine: of mean and target.
    """

    mean_SV: Tensor
    bias: float
    variance: float
    cosine: float


def single(at: Situation, c_RT: Tensor, target_SV: Tensor, law_R: Tensor | None = None) -> Single:
    """Return the moments of the estimator with coefficients c, for a tabular policy.

    Args:
        c_RT: coefficient of each token's log-prob, for every response.
        target_SV: the gradient to compare with.
        law_R: probability of each response; the sampler's (`old`) if None.
    """
    p_R = at.old_probability_R if law_R is None else law_R
    rows_RTV = at.rows(torch.where(at.space.mask_RT, c_RT, 0), torch.arange(len(c_RT)))
    mean_SV = at.scatter(p_R[:, None, None] * rows_RTV)
    # All states of a response are different, so the squared norm is the sum over its tokens.
    square = (p_R * rows_RTV.square().sum(dim=(1, 2))).sum().item()
    norm, size = target_SV.square().sum().item(), mean_SV.square().sum().item()
    return Single(
        mean_SV=mean_SV,
        bias=(mean_SV - target_SV).square().sum().item() / norm,
        variance=(square - size) / norm,
        cosine=(mean_SV * target_SV).sum().item() / max((norm * size) ** 0.5, 1e-300),
    )


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return |a - b| / |b|."""
    return ((a - b).norm() / b.norm()).item()
