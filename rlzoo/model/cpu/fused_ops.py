"""Elementwise parts of a transformer layer with hand-written gradients, which read memory less often than autograd.

    rms_norm:  y = w x r,  r = (mean_j x_j^2 + eps)^(-1/2)      dx = r w g - x r^3 mean_j(x_j w_j g_j)
    swiglu:    y = silu(a) b,  silu(a) = a sigmoid(a)           da = silu'(a) b g,   db = silu(a) g
    rotate:    y = (x1 cos - x2 sin, x2 cos + x1 sin)           dx: rotated back, by -sin

The weight w and the angles are frozen and get no gradient. Autograd records none of these functions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the root-mean-square norm of the last dimension times a weight [H], and r [.., 1].

    Zhang & Sennrich 2019.
    """
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    r = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return normed(x, weight, r), r


def normed(x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    """Return the norm of x for a known r: w x r."""
    return (x * r).mul_(weight)


def rms_norm_backward(g: Tensor, x: Tensor, weight: Tensor, r: Tensor) -> Tensor:
    """Return the gradient of x. Overwrites g."""
    g = g.mul_(weight)
    along = (g * x).sum(dim=-1, keepdim=True).mul_(r**3 / x.shape[-1])
    return g.mul_(r).addcmul_(x, along, value=-1)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020)."""
    return F.silu(gate).mul_(up)


def swiglu_and_gradient(gate: Tensor, up: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """Return `swiglu(gate, up)` and its backward function, which maps the output's gradient to those of gate and up.

    Call the backward function at most once: it overwrites its argument and the output.
    """
    silu = F.silu(gate)
    y = silu * up

    def gradient(g: Tensor) -> tuple[Tensor, Tensor]:
        dup = torch.mul(g, silu, out=y)
        return torch.ops.aten.silu_backward.grad_input(g.mul_(up), gate, grad_input=silu), dup

    return y, gradient


def rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotate x [.., d] by its position's angles, in place (rotary embedding, Su et al. 2021).

    The pairs are (j, j + d/2). `signed_sin` is `signed(sin)`; its negative rotates back.
    """
    halves_swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return x.mul_(cos).addcmul_(halves_swapped, signed_sin)


def signed(sin: Tensor) -> Tensor:
    """Return the sines [.., d], whose halves are equal, with the first half negated."""
    first, second = sin.chunk(2, dim=-1)
    return torch.cat([-first, second], dim=-1)
