"""Norm, activation and rotation with their gradients: numbers by hand, gradients by finite differences."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rlzoo.functions import rms_norm, signed, swiglu, turned


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_rms_norm() -> None:
    """(3, 4): mean square 12.5, so with eps 3.5 divided by 4; times the weight (2, 1)."""
    x, weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(rms_norm(x, weight, 3.5), torch.tensor([[1.5, 1.0]], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, numbers(5).detach(), 1e-6), numbers(2, 3, 5))


def test_swiglu() -> None:
    """silu(0) = 0 and silu(ln 3) = ln 3 / (1 + 1/3) = 0.75 ln 3."""
    gate, up = torch.tensor([0.0, math.log(3)]), torch.tensor([5.0, 4.0])
    torch.testing.assert_close(swiglu(gate, up), torch.tensor([0.0, 3 * math.log(3)]))
    assert torch.autograd.gradcheck(swiglu, (numbers(2, 3, 4), 2 * numbers(2, 3, 4)))


def test_turned() -> None:
    """The pairs of (1, 2, 3, 4) are (1, 3) and (2, 4); by 90 and by 0 degrees they become (-3, 1) and (2, 4)."""
    angles = torch.tensor([math.pi / 2, 0.0, math.pi / 2, 0.0])
    cos, signed_sin = angles.cos(), signed(angles.sin())
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(turned(x, cos, signed_sin), torch.tensor([[-3.0, 2.0, 1.0, 4.0]]))
    torch.testing.assert_close(turned(x, cos, -signed_sin), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))  # in place, and back
