"""Small functions of a transformer's layer with their gradients written out: fewer passes over memory than autograd's.

    rms_norm:  y = w x r,  r = (mean_j x_j^2 + eps)^(-1/2)      dx = r w g - x r^3 mean_j(x_j w_j g_j)
    swiglu:    y = silu(a) b                                    da = silu'(a) b g,   db = silu(a) g
    turned:    y = (x1 cos - x2 sin, x2 cos + x1 sin)           dx: turned back, by -sin

w and the angles are frozen and get no gradient. Nothing is saved for it but what came in, and r.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm of the last dimension (Zhang & Sennrich 2019), times a weight [H]."""
    return _RmsNorm.apply(x, weight, eps)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020)."""
    return _Swiglu.apply(gate, up)


def turned(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Turn x [.., d] by its position's angles, in place (rotary embedding, Su et al. 2021); for use without gradient.

    The pairs are (j, j + d/2). `signed_sin` is `signed(sin)`; its negative turns back.
    """
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return x.mul_(cos).addcmul_(halves_swapped, signed_sin)


def signed(sin: Tensor) -> Tensor:
    """Return the sines [.., d], each angle twice, with the first half's sign changed."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat([-first, second], dim=-1)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        r = x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, weight, r = ctx.saved_tensors
        g = gradients[0] * weight
        along = (g * x).sum(dim=-1, keepdim=True).mul_(r**3 / x.shape[-1])
        return g.mul_(r).addcmul_(x, along, value=-1), None, None


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (g,), (gate, up) = gradients, ctx.saved_tensors
        return torch.ops.aten.silu_backward(g * up, gate), F.silu(gate).mul_(g)
