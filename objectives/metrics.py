"""Metrics: one function for all objectives, with the same keys. nan means "does not apply here".

A token is clipped when its advantage is not 0 but the gradient of its surrogate is 0. This is computed by
differentiating the surrogate, so it is right for any surrogate, including third parties'. All means are over the tokens
inside the mask, with equal weights.

    clip_low, clip_high   shares of the tokens that are clipped with a ratio below 1, above 1; clip_fraction their sum
    ratio_*  of the ratio r that this objective uses: without a ratio 1, however far the policy has moved
    ess      (sum r)^2 / (n sum r^2), the effective share of the n tokens under these ratios
    kl_old   mean of rho - 1 - log rho with the token's own rho = pi / old, at tokens drawn from old: KL(old || pi)
    kl_ref   mean of exp(-D) - 1 + D, D = log pi - log ref: KL(pi || ref) while the tokens are pi's own
    entropy  mean of -log old at the sampled tokens: estimates the entropy of the sampling policy
    correction_mean     of the weights that correct for the sampler's mismatch
    correction_capped   share of the tokens whose such weight is above its cap
    explained_variance  1 - Var(R - V) / Var(R) with the current critic's V
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from advantages import Credit
from advantages.statistics import group_spread, group_sum
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
    log_ratio_BT = objective.log_ratio(policy, batch)
    low, high = _clipped(objective, log_ratio_BT, batch)
    token_log_ratio = (policy.logp_BT - batch.old_logp_BT)[mask]
    r = ratio(log_ratio_BT[mask])
    nan = torch.full((), math.nan, device=r.device, dtype=r.dtype)
    kl_ref, explained = nan, nan
    if batch.ref_logp_BT is not None:
        kl_ref = k3(policy.logp_BT, batch.ref_logp_BT)[mask].mean()
    if policy.value_BT is not None and batch.return_BT is not None:
        explained = _explained_variance(policy.value_BT[mask], batch.return_BT[mask])
    values = [
        *(objective.loss(policy, batch), low, high, low + high, r.mean(), r.amin(), r.amax(), r.std(correction=0)),
        *(r.sum().square() / (r.numel() * r.square().sum()), (torch.expm1(token_log_ratio) - token_log_ratio).mean()),
        *(kl_ref, -batch.old_logp_BT[mask].mean(), explained, *(_corrections(objective, batch) or (nan, nan))),
    ]
    return _named(UPDATE_KEYS, [x.to(r.dtype) for x in values])


UPDATE_KEYS = (
    *("loss", "clip_low", "clip_high", "clip_fraction", "ratio_mean", "ratio_min", "ratio_max", "ratio_std"),
    *("ess", "kl_old", "kl_ref", "entropy", "explained_variance", "correction_mean", "correction_capped"),
)


def _clipped(objective: Objective, log_ratio_BT: Tensor, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Shares of tokens without a surrogate gradient, below and above ratio 1."""
    with torch.enable_grad():
        leaf = log_ratio_BT.detach().requires_grad_()
        (gradient_BT,) = torch.autograd.grad(objective.per_token(leaf, batch)[batch.mask_BT].sum(), leaf)
    log_ratio, advantage = log_ratio_BT[batch.mask_BT], batch.advantage_BT[batch.mask_BT]
    dead = (gradient_BT[batch.mask_BT] == 0) & (advantage != 0)
    return (dead & (log_ratio < 0)).to(log_ratio.dtype).mean(), (dead & (log_ratio > 0)).to(log_ratio.dtype).mean()


def _corrections(objective: Objective, batch: TokenBatch) -> tuple[Tensor, Tensor] | None:
    """Mean weight, and share of the tokens whose weight is not the full importance weight."""
    if objective.correction is None or batch.sampler_logp_BT is None:
        return None
    given = batch.old_logp_BT, batch.sampler_logp_BT, batch.mask_BT
    weight = objective.correction(*given)[batch.mask_BT]
    full = ratio(objective.correction.log_weight(*given))[batch.mask_BT]
    return weight.mean(), (weight != full).to(weight.dtype).mean()


def _explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R); nan where all targets are equal."""
    total = target.var(correction=0)
    return torch.where(total > 0, 1 - (target - value).var(correction=0) / total, math.nan)


def _named(keys: tuple[str, ...], values: list[Tensor]) -> dict[str, float]:
    numbers = cast("list[float]", torch.stack(values).tolist())  # one transfer from the device for all of them
    return dict(zip(keys, numbers, strict=True))


def rollout_metrics(reward_N: Tensor, mask_NT: Tensor, group_N: Tensor, credit: Credit) -> dict[str, float]:
    """Describe one rollout: the share of silent groups, and the advantages of its tokens.

    A group is silent if all its responses got the same reward, or if it has a single response. Rows without a token
    belong to no group.

    Args:
        reward_N: the task's reward of each response, before shaping.
    """
    valid_N = mask_NT.any(dim=1)
    if not bool(valid_N.any()):
        return dict.fromkeys(ROLLOUT_KEYS, math.nan)
    share_N = torch.where(valid_N, 1 / group_sum(valid_N.double(), group_N), 0)  # of its group; groups have sum 1
    silent_N = group_spread(reward_N, valid_N, group_N) == 0
    advantage = credit.advantage_NT[mask_NT].double()
    values = [
        torch.where(silent_N, share_N, 0).sum() / share_N.sum(),
        *(advantage.mean(), advantage.std(correction=0), advantage.amin(), advantage.amax()),
    ]
    return _named(ROLLOUT_KEYS, values)


ROLLOUT_KEYS = ("silent_groups", "advantage_mean", "advantage_std", "advantage_min", "advantage_max")
