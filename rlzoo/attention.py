"""Attention over short sequences, as batched products; fused kernels (SDPA) are made for long ones.

    p = softmax(s q k^T + mask)         o = p v                                       s: the scaling
    dv = p^T do    dp = do v^T    ds = p (dp - sum_j dp p)    dq = s ds k    dk = s ds^T q

Per sequence and head SDPA takes some microseconds on a CPU, however little there is to do. Queries [B, heads, S, d]; of
keys and values there may be fewer heads, each shared by a group of queries' heads; values may have another width, which
is then that of what comes out. Float32, on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlzoo import products

SHORT = 128
"""Positions up to which this is the faster way."""


def is_short(query: Tensor, key: Tensor) -> bool:
    """Whether batched products are the way for these."""
    return query.device.type == "cpu" and query.dtype == torch.float32 and key.shape[2] <= SHORT


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention of every position to those up to itself: [B, heads, S, d]."""
    return _Causal.apply(query, key, value, scaling)


def one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Attention [B, heads, 1, d] of one position to those that a bool mask [B, 1, 1, S] admits; without gradient."""
    query_KRD, key_KSD, value_KSD = _stack(query, key.shape[1]), key.flatten(0, 1), value.flatten(0, 1)
    score_KRS = torch.bmm(query_KRD * scaling, key_KSD.mT)
    if mask is not None:
        score_KRS.view(*query.shape[:3], -1).masked_fill_(~mask, -torch.inf)
    return torch.bmm(score_KRS.softmax(dim=2), value_KSD).view(*query.shape[:3], -1)


def causal_forward(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Return o [B, heads, S, d] and p [B * key heads, group * S, S], which `causal_backward` asks for."""
    (_, heads, length, _), fewer = query.shape, key.shape[1]
    later_SS = query.new_full((length, length), -torch.inf).triu(1)
    query_KRD, key_KSD, value_KSD = _stack(query, fewer), _stack(key, fewer), _stack(value, fewer)
    with products.fast(query_KRD.shape[0] * query_KRD.shape[1], query.device):
        later_RS = later_SS.repeat(heads // fewer, 1)
        p_KRS = torch.baddbmm(later_RS, query_KRD, key_KSD.mT, alpha=scaling).softmax(dim=2)
        out_KRD = torch.bmm(p_KRS, value_KSD)
    return out_KRD.view(*query.shape[:3], -1), p_KRS


def causal_backward(
    g: Tensor, query: Tensor, key: Tensor, value: Tensor, p_KRS: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value, given that of o."""
    query_KRD, key_KSD, value_KSD, g_KRD = (_stack(x, key.shape[1]) for x in (query, key, value, g))
    with products.fast(g_KRD.shape[0] * g_KRD.shape[1], g_KRD.device):
        dvalue = torch.bmm(p_KRS.mT, g_KRD)
        ds_KRS = torch.bmm(g_KRD, value_KSD.mT)
        ds_KRS.sub_((ds_KRS * p_KRS).sum(dim=2, keepdim=True)).mul_(p_KRS).mul_(scaling)
        dquery, dkey = torch.bmm(ds_KRS, key_KSD), torch.bmm(ds_KRS.mT, query_KRD)
    return dquery.view(query.shape), dkey.view(key.shape), dvalue.view(value.shape)


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        out, p_KRS = causal_forward(query, key, value, scaling)
        ctx.save_for_backward(query, key, value, p_KRS)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *causal_backward(gradients[0], *ctx.saved_tensors, ctx.scaling), None


def _stack(x: Tensor, groups: int) -> Tensor:
    """[B, heads, S, d] as [B * groups, heads / groups * S, d]."""
    return x.reshape(x.shape[0] * groups, -1, x.shape[3])
