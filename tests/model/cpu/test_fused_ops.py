"""Norm, activation and rotation: numbers by hand, gradients against autograd of the formulas."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlzoo.model.cpu.fused_ops import normed, rms_norm, rms_norm_backward, rotate, signed, swiglu, swiglu_and_gradient


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_rms_norm() -> None:
    """(3, 4): mean square 12.5, so with eps 3.5 divided by 4; times the weight (2, 1)."""
    x, weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    y, r = rms_norm(x, weight, 3.5)
    torch.testing.assert_close(y, torch.tensor([[1.5, 1.0]], dtype=torch.float64))
    assert r.item() == 0.25 and torch.equal(normed(x, weight, r), y)


def test_rms_norm_backward() -> None:
    x, weight, g = numbers(2, 3, 5), numbers(5, seed=1).detach(), numbers(2, 3, 5, seed=2).detach()
    y = weight * x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    (expected,) = torch.autograd.grad(y, x, g)
    _, r = rms_norm(x.detach(), weight, 1e-6)
    torch.testing.assert_close(rms_norm_backward(g.clone(), x.detach(), weight, r), expected)


def test_swiglu() -> None:
    """silu(0) = 0 and silu(ln 3) = ln 3 / (1 + 1/3) = 0.75 ln 3."""
    gate, up = torch.tensor([0.0, math.log(3)]), torch.tensor([5.0, 4.0])
    torch.testing.assert_close(swiglu(gate, up), torch.tensor([0.0, 3 * math.log(3)]))


def test_swiglu_and_gradient() -> None:
    gate, up, g = numbers(2, 3, 4), numbers(2, 3, 4, seed=1), numbers(2, 3, 4, seed=2).detach()
    expected = torch.autograd.grad(gate * torch.sigmoid(gate) * up, (gate, up), g)
    y, gradient = swiglu_and_gradient(gate.detach(), up.detach())
    torch.testing.assert_close(y, swiglu(gate, up).detach())
    torch.testing.assert_close(gradient(g.clone()), expected)


def test_turn() -> None:
    """The pairs of (1, 2, 3, 4) are (1, 3) and (2, 4); by 90 and by 0 degrees they become (-3, 1) and (2, 4)."""
    angles = torch.tensor([math.pi / 2, 0.0, math.pi / 2, 0.0])
    cos, signed_sin = angles.cos(), signed(angles.sin())
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(rotate(x, cos, signed_sin), torch.tensor([[-3.0, 2.0, 1.0, 4.0]]))
    torch.testing.assert_close(rotate(x, cos, -signed_sin), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))  # in place, and back
