"""Attention over short sequences as batched matrix products, where fused kernels (SDPA) are slow.

    p = softmax(s q k^T + mask)         o = p v                                       s: the scaling
    dv = p^T do    dp = do v^T    ds = p (dp - sum_j dp p)    dq = s ds k    dk = s ds^T q

On a CPU, SDPA takes some microseconds per sequence and head, however short the sequence. Queries are [B, heads, S, d].
Keys and values may have fewer heads, each shared by a group of query heads. Values, and so the output, may have another
width than keys. All functions expect float32 on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORT = 128
"""Number of keys up to which batched products are faster than SDPA."""


def is_short(query: Tensor, key: Tensor) -> bool:
    """Whether to use batched products: float32, on a CPU, at most `SHORT` keys."""
    return query.device.type == "cpu" and query.dtype == torch.float32 and key.shape[2] <= SHORT


def causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention [B, heads, S, d], with gradient."""
    return _Causal.apply(query, key, value, scaling)


def additive(seen_BS: Tensor, key_heads: int, dtype: torch.dtype) -> Tensor:
    """Return the additive mask [B * key heads, 1, S] of a bool mask [B, S]: 0 where seen, else -inf."""
    mask_BS = torch.zeros(seen_BS.shape, dtype=dtype, device=seen_BS.device).masked_fill_(~seen_BS, -torch.inf)
    return mask_BS[:, None].expand(-1, key_heads, -1).reshape(len(seen_BS) * key_heads, 1, -1)


def one_query(query: Tensor, key: Tensor, value: Tensor, mask_K1S: Tensor, scaling: float) -> Tensor:
    """Attention [B, heads, 1, d] of one query per row under an `additive` mask, without gradient."""
    query_KRD, key_KSD, value_KSD = _stack(query, key.shape[1]), key.flatten(0, 1), value.flatten(0, 1)
    p_KRS = torch.baddbmm(mask_K1S, query_KRD, key_KSD.mT, alpha=scaling).softmax(dim=2)
    return torch.bmm(p_KRS, value_KSD).view(*query.shape[:3], -1)


def attend(
    query_KRD: Tensor, key_KSD: Tensor, value_KSD: Tensor, mask: Tensor, scaling: float, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return o [K, R, d], written to `out` if given, and the weights p [K, R, S] for `attend_backward`."""
    p_KRS = torch.baddbmm(mask, query_KRD, key_KSD.mT, alpha=scaling).softmax(dim=2)
    return torch.bmm(p_KRS, value_KSD, out=out), p_KRS


def attend_backward(
    g_KRD: Tensor,
    query_KRD: Tensor,
    key_KSD: Tensor,
    value_KSD: Tensor,
    p_KRS: Tensor,
    scaling: float,
    out: Sequence[Tensor | None] = (None, None, None),
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value for the gradient g of o; written to `out` if given."""
    dvalue = torch.bmm(p_KRS.mT, g_KRD, out=out[2])
    dp_KRS = torch.bmm(g_KRD, value_KSD.mT)
    ds_KRS = torch.ops.aten._softmax_backward_data(dp_KRS, p_KRS, 2, dp_KRS.dtype).mul_(scaling)
    return torch.bmm(ds_KRS, key_KSD, out=out[0]), torch.bmm(ds_KRS.mT, query_KRD, out=out[1]), dvalue


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        (_, heads, length, _), fewer = query.shape, key.shape[1]
        later_SS = query.new_full((length, length), -torch.inf).triu(1)
        stacked = [_stack(x, fewer) for x in (query, key, value)]
        out_KRD, p_KRS = attend(*stacked, later_SS.repeat(heads // fewer, 1), scaling)
        ctx.save_for_backward(*stacked, p_KRS)
        ctx.scaling, ctx.shapes = scaling, [x.shape for x in (query, key, value)]
        return out_KRD.view(*query.shape[:3], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *stacked, p_KRS = ctx.saved_tensors
        g_KRD = gradients[0].reshape(*stacked[0].shape[:2], -1)
        found = attend_backward(g_KRD, *stacked, p_KRS, ctx.scaling)
        return *(x.view(shape) for x, shape in zip(found, ctx.shapes, strict=True)), None


def _stack(x: Tensor, groups: int) -> Tensor:
    """[B, heads, S, d] as [B * groups, heads / groups * S, d]."""
    return x.reshape(x.shape[0] * groups, -1, x.shape[3])
