"""Masked and grouped statistics."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advantages import whiten
from advantages.statistics import WHITEN_EPS, group_spread, group_sum


def test_whiten_by_hand() -> None:
    """1, 3, 5 inside the mask: mean 3, variance (4 + 0 + 4) / 2 = 4, so -1, 0, 1, but for 1e-8 under the root."""
    x_NT = torch.tensor([[1.0, 3.0, 100.0], [5.0, math.nan, math.nan]], dtype=torch.float64)
    mask_NT = torch.tensor([[True, True, False], [True, False, False]])
    scale = 2 / math.sqrt(4 + WHITEN_EPS)
    assert whiten(x_NT, mask_NT).flatten().tolist() == pytest.approx([-scale, 0, 0, scale, 0, 0], rel=1e-14)


def test_whiten_one_token_is_zero() -> None:
    mask_NT = torch.tensor([[False, True]])
    assert whiten(torch.tensor([[3.0, 7.0]]), mask_NT).tolist() == [[0, 0]]


def test_whiten_equal_tokens_stay_near_zero_in_float32() -> None:
    """The residue of a mean of 0.1s, 1e-8, over sqrt(1e-8) is at most 1e-3; a guard of 1e-12 would make it 1e-2."""
    x_NT = torch.full((64, 16), 0.1)
    assert whiten(x_NT, torch.ones_like(x_NT, dtype=torch.bool)).abs().max() < 1e-3


def test_whiten_nothing() -> None:
    assert whiten(torch.tensor([[math.nan]]), torch.tensor([[False]])).tolist() == [[0]]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=30).filter(lambda x: max(x) - min(x) > 0.1))
def test_whitened_tokens_have_mean_0_and_variance_1(values: list[float]) -> None:
    x_NT = torch.tensor([values], dtype=torch.float64)
    white = whiten(x_NT, torch.ones_like(x_NT, dtype=torch.bool))
    assert white.mean().item() == pytest.approx(0, abs=1e-9)
    assert white.var().item() == pytest.approx(1, rel=1e-3)


def test_group_sum_and_spread_are_returned_at_every_row() -> None:
    """Ids are any integers in any order. Group -5: 1, 2, 7; group 40: 10, 30; group 3 has no valid row."""
    group_N = torch.tensor([-5, 40, -5, 40, -5, 3])
    x_N = torch.tensor([1.0, 10.0, 2.0, 30.0, 7.0, 9.0])
    valid_N = torch.tensor([True, True, True, True, False, False])
    assert group_sum(x_N, group_N).tolist() == [10, 40, 10, 40, 10, 9]
    assert group_spread(x_N, valid_N, group_N).tolist() == [1, 20, 1, 20, 1, -math.inf]


def test_no_rows() -> None:
    empty, none = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert group_sum(empty, none).tolist() == []
    assert group_spread(empty, none.bool(), none).tolist() == []
