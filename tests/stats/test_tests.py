"""Corrections and intervals, against scipy, closed forms and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rlzoo.stats.tests import holm, holm_levels, improvement, interquartile_mean


def test_holm_by_hand() -> None:
    # Sorted: 0.01, 0.02, 0.03, 0.5, times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5. The third may not fall below the second.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.03]) == [0.03] and holm([]) == []
    # Two more questions were declared: times 4 and 3.
    assert holm([0.01, 0.02], family=4) == pytest.approx([0.04, 0.06])


def test_holm_rejects_what_stepping_down_rejects() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        p = list(rng.beta(0.3, 2, size=rng.integers(1, 9)))
        family = len(p) + int(rng.integers(0, 3))
        rejected = set()
        for rank, i in enumerate(np.argsort(p)):
            if p[i] >= 0.05 / (family - rank):
                break
            rejected.add(i)
        assert {i for i, q in enumerate(holm(p, family)) if q < 0.05} == rejected
        assert {i for i, level in enumerate(holm_levels(p, 0.05, family)) if p[i] < level} == rejected


def test_holm_levels_by_hand() -> None:
    # 0.001 is tested at 5% / 3 and claimed; 0.03 at 5% / 2 and not; so is the last.
    assert holm_levels([0.5, 0.001, 0.03], 0.05) == pytest.approx([0.025, 0.05 / 3, 0.025])


def test_improvement_agrees_with_the_exact_binomial_interval() -> None:
    one = improvement([0.1, 0.2, 0.1, -0.1, 0.3])
    exact = scipy_stats.binomtest(4, 5).proportion_ci(0.95, method="exact")
    assert (one.mean, one.low, one.high) == (0.8, pytest.approx(exact.low), pytest.approx(exact.high))
    # All above: the lower limit is (alpha / 2)^(1/n).
    one = improvement([0.1] * 8)
    assert (one.mean, one.low, one.high) == (1.0, pytest.approx(0.025 ** (1 / 8)), 1.0)
    # Ties count half, so two of them are a win and a loss.
    tied = improvement([0.1, 0.2, 0.0, 0.0, 0.3])
    assert (tied.mean, tied.low, tied.high) == (0.8, pytest.approx(exact.low), pytest.approx(exact.high))
    assert improvement([0.0]).mean == 0.5


def test_interquartile_mean() -> None:
    # Of eight values two are cut at each end: (3 + 4 + 5 + 6) / 4.
    one = interquartile_mean([1.0, 2, 3, 4, 5, 6, 7, 800])
    assert one.mean == 4.5 and one.low is not None and one.high is not None and one.low < 4.5 < one.high
    assert interquartile_mean([1.0, 2, 6]).mean == 3.0  # nothing to cut
    assert interquartile_mean([0.3]).low is None
