"""Metrics: one function for all objectives, with the same keys. nan means "does not apply here".

A token is clipped when its advantage is not 0 but the gradient of its surrogate is; this is found by differentiating
the surrogate itself, so it is right for any surrogate, also one that is not ours.

    ess      (sum r)^2 / (N sum r^2), the effective share of the tokens under their ratios
    kl_old   mean of r - 1 - log r at tokens drawn from the old policy: KL(old || pi) per token
    kl_ref   mean of exp(-D) - 1 + D, D = log pi - log ref: KL(pi || ref) per token
    entropy  mean of -log old at the sampled tokens: unbiased for the entropy of the sampling policy, per token
    explained_variance  1 - Var(R - V) / Var(R)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advantages import Credit
from advantages.statistics import group_extreme
from objectives.objective import Objective
from objectives.parts.regularize import k3
from objectives.parts.surrogate import ratio
from objectives.types import PolicyOutput, TokenBatch


def update_metrics(objective: Objective, policy: PolicyOutput, batch: TokenBatch) -> dict[str, float]:
    """Describe one optimizer step: `policy` and `batch` hold ALL its rows, so no mean of means arises."""
    policy = policy.detach()
    mask = batch.mask_BT
    if not bool(mask.any()):
        return dict.fromkeys(UPDATE_KEYS, math.nan)
    log_ratio = objective.ratio(policy.logp_BT, batch.old_logp_BT, mask)[mask]
    advantage = batch.advantage_BT[mask]
    low, high = _clipped(objective, log_ratio, advantage)
    token_log_ratio = (policy.logp_BT - batch.old_logp_BT)[mask]
    r = ratio(log_ratio)
    nan = torch.full((), math.nan, device=r.device, dtype=r.dtype)
    reference, value = nan, nan
    if batch.ref_logp_BT is not None:
        reference = k3(policy.logp_BT, batch.ref_logp_BT)[mask].mean()
    if policy.value_BT is not None and batch.return_BT is not None:
        target = batch.return_BT[mask]
        residual = target - policy.value_BT[mask]
        value = 1 - residual.var(correction=0) / target.var(correction=0) if target.var(correction=0) > 0 else nan
    values = [
        *(objective.loss(policy, batch), low, high, low + high, r.mean(), r.amin(), r.amax(), r.std(correction=0)),
        *(r.sum().square() / (r.numel() * r.square().sum()), (torch.expm1(token_log_ratio) - token_log_ratio).mean()),
        *(reference, -batch.old_logp_BT[mask].mean(), value),
    ]
    return dict(zip(UPDATE_KEYS, torch.stack([x.to(r.dtype) for x in values]).tolist(), strict=True))


UPDATE_KEYS = (
    *("loss", "clip_low", "clip_high", "clip_fraction", "ratio_mean", "ratio_min", "ratio_max", "ratio_std"),
    *("ess", "kl_old", "kl_ref", "entropy", "explained_variance"),
)


def _clipped(objective: Objective, log_ratio: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of tokens without a surrogate gradient, below and above ratio 1."""
    with torch.enable_grad():
        leaf = log_ratio.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective.surrogate(leaf, advantage).sum(), leaf)
    dead = (gradient == 0) & (advantage != 0)
    return (dead & (log_ratio < 0)).to(log_ratio.dtype).mean(), (dead & (log_ratio > 0)).to(log_ratio.dtype).mean()


def rollout_metrics(reward_N: Tensor, mask_NT: Tensor, group_N: Tensor, credit: Credit) -> dict[str, float]:
    """Describe one rollout: silent groups (all responses got the same unshaped reward) and the advantages.

    Args:
        reward_N: the task's reward of each response, before shaping.
    """
    valid_N = mask_NT.any(dim=1)
    if not bool(valid_N.any()):
        return dict.fromkeys(ROLLOUT_KEYS, math.nan)
    spread_N = group_extreme(reward_N, valid_N, group_N) + group_extreme(-reward_N, valid_N, group_N)
    sizes = torch.unique(group_N[valid_N], return_counts=True, return_inverse=True)
    per_row = 1.0 / sizes[2][sizes[1]]
    silent = ((spread_N[valid_N] == 0) * per_row).sum() / sizes[0].numel()
    advantage = credit.advantage_NT[mask_NT].double()
    values = [silent.double(), advantage.mean(), advantage.std(correction=0), advantage.amin(), advantage.amax()]
    return dict(zip(ROLLOUT_KEYS, torch.stack(values).tolist(), strict=True))


ROLLOUT_KEYS = ("silent_groups", "advantage_mean", "advantage_std", "advantage_min", "advantage_max")
