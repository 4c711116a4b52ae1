"""Weights of tokens, exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives.parts import Aggregate, Constant, SequenceMean, SequenceSum, TokenMean

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
"""Lengths 3, 1, none, 2: six tokens in three responses."""


@pytest.mark.parametrize(
    ("aggregate", "shares"),
    [
        (TokenMean(), (Fraction(1, 6), Fraction(1, 6), Fraction(1, 6))),
        (SequenceMean(), (Fraction(1, 9), Fraction(1, 3), Fraction(1, 6))),
        (SequenceSum(), (Fraction(1, 3), Fraction(1, 3), Fraction(1, 3))),
        (Constant(budget=4), (Fraction(1, 12), Fraction(1, 12), Fraction(1, 12))),
    ],
    ids=lambda x: getattr(x, "kind", ""),
)
def test_shares(aggregate: Aggregate, shares: tuple[Fraction, ...]) -> None:
    """m / N, m / (B n_i), m / B, m / (B budget), with B = 3 although the tensor has four rows."""
    long, short, holey = map(float, shares)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, :3], expected[1, 0], expected[3, 1], expected[3, 3] = long, short, holey, holey
    torch.testing.assert_close(aggregate(MASK, torch.float64), expected, rtol=1e-15, atol=0)
    assert aggregate(MASK).dtype == torch.float32


@pytest.mark.parametrize("aggregate", [TokenMean(), SequenceMean(), SequenceSum(), Constant(budget=4)], ids=str)
def test_nothing_has_no_weight(aggregate: Aggregate) -> None:
    assert (aggregate(torch.zeros(2, 3, dtype=torch.bool)) == 0).all()
    assert aggregate(torch.zeros(0, 3, dtype=torch.bool)).shape == (0, 3)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6).filter(lambda m: any(map(any, m)))
)
def test_totals(mask: list[list[bool]]) -> None:
    """Means have total weight 1, whatever the mask; a sum has the mean length, a budget that over the budget."""
    mask_BT = torch.tensor(mask)
    mean_length = mask_BT.sum().item() / mask_BT.any(dim=1).sum().item()
    totals = {
        TokenMean(): 1,
        SequenceMean(): 1,
        SequenceSum(): mean_length,
        Constant(budget=10): mean_length / 10,
    }
    for aggregate, total in totals.items():
        weight_BT = aggregate(mask_BT, torch.float64)
        assert weight_BT.sum().item() == pytest.approx(total, rel=1e-12)
        assert (weight_BT[~mask_BT] == 0).all()


def test_constant_needs_its_budget() -> None:
    with pytest.raises(ValueError, match=r"budget\n  Field required"):
        Aggregate.parse("constant")
