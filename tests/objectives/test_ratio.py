"""Ratios: value and gradient by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.parts import NoRatio, Ratio, Sequence, Token

MASK = torch.tensor([[True, True, True], [True, False, False]])


def logp(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def test_token_ratio_is_of_one_token_whatever_the_others_do() -> None:
    """old 0.1, pi 0.3: the ratio is 3."""
    new, old = logp([math.log(0.3), math.log(0.5), 0]), torch.tensor([[math.log(0.1), math.log(0.5), 0]])
    ratio = Token()(new, old.double(), MASK[:1]).exp()
    assert ratio.tolist() == [pytest.approx([3, 1, 1])]


def test_sequence_ratio_is_the_geometric_mean() -> None:
    """log-ratios 0.3, 0, -0.6: mean -0.1 at all three tokens. One token: its own. 0 outside the mask."""
    new, old = logp([-0.7, -1.0, -1.6], [-0.5, 9, 9]), torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 5, 5]]).double()
    log_ratio = Sequence()(new, old, MASK)
    assert log_ratio.tolist() == [pytest.approx([-0.1, -0.1, -0.1]), pytest.approx([0.5, 0, 0])]


@pytest.mark.parametrize("ratio", [NoRatio(), Token(), Sequence()], ids=str)
def test_each_token_has_its_own_gradient_1(ratio: Ratio) -> None:
    """d log-ratio_t / d logp_s is 1 at t = s inside the mask, else 0: the sequence ratio's mean carries none."""
    new, old = logp([-0.7, -1.0, -1.6], [-0.5, 9, 9]), torch.full((2, 3), -1.0).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: ratio(x, old, MASK).flatten(), new.detach())
    assert torch.equal(jacobian.flatten(1), torch.diag(MASK.flatten().double()))


def test_no_ratio_has_value_0_wherever_old_is() -> None:
    new = logp([-0.7, -1.0, -1.6], [-0.5, 9, 9])
    assert NoRatio()(new, torch.full((2, 3), math.nan), MASK).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_length_normalized_ratio_does_not_grow_with_length() -> None:
    """Every token 1 % likelier: the response's ratio is 1.01 at any length, its probability's 1.01^n."""
    for n in (1, 10, 1000):
        new = torch.full((1, n), math.log(1.01), dtype=torch.float64)
        ratio = Sequence()(new, torch.zeros(1, n).double(), torch.ones(1, n, dtype=torch.bool)).exp()
        assert ratio[0, -1].item() == pytest.approx(1.01, rel=1e-12)
