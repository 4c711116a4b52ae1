"""Intervals over seeds, against numbers worked out by hand and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rlzoo.stats.intervals import Interval, interval, paired, verdict


def test_three_values_by_hand() -> None:
    # mean 2, s = sqrt((1 + 0 + 1) / 2) = 1, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653
    result = interval([1.0, 2.0, 3.0])
    assert result.n == 3
    assert result.mean == pytest.approx(2.0)
    assert result.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert result.low == pytest.approx(2 - 2.484138, rel=1e-5)


def test_two_values_have_a_closed_form() -> None:
    # With one degree of freedom t is Cauchy: its quantile is tan(pi (p - 1/2)).
    a, b, confidence = 0.3, 0.7, 0.9
    result = interval([a, b], confidence)
    assert result.half_width == pytest.approx(math.tan(math.pi * confidence / 2) * abs(a - b) / 2)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_agrees_with_scipy(confidence: float) -> None:
    values = np.random.default_rng(0).normal(3, 2, size=11)
    low, high = scipy_stats.t.interval(confidence, 10, loc=values.mean(), scale=scipy_stats.sem(values))
    result = interval(list(values), confidence)
    assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))


def test_covers_the_truth_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).normal(1.0, 0.3, size=(4000, 4))
    results = [interval(list(row)) for row in samples]
    covered = np.mean([r.low <= 1.0 <= r.high for r in results if r.low is not None and r.high is not None])
    assert covered == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors of 4000 trials


def test_one_value_has_no_interval() -> None:
    assert interval([0.4]) == Interval(0.4, None, None, 1)
    assert interval([0.4]).half_width is None
    assert interval([0.4]).as_dict() == {"mean": 0.4, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(values)


def test_paired_uses_differences_of_shared_seeds() -> None:
    before = {0: 0.10, 1: 0.50, 2: 0.90, 7: 0.0}
    after = {0: 0.21, 1: 0.60, 2: 0.99, 3: 0.0}
    result = paired(after, before)
    assert result.n == 3
    assert result.mean == pytest.approx(0.10)
    assert result.half_width == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert result.sign == 1
    # The same numbers unpaired could not tell: the seeds differ more than the two measurements.
    unpaired = scipy_stats.ttest_ind([0.21, 0.60, 0.99], [0.10, 0.50, 0.90])
    assert unpaired.pvalue > 0.5


def test_paired_agrees_with_scipy() -> None:
    numbers = np.random.default_rng(2)
    a, b = numbers.normal(size=6), numbers.normal(size=6)
    expected = scipy_stats.ttest_rel(a, b).confidence_interval(0.95)
    result = paired(dict(enumerate(a)), dict(enumerate(b)))
    assert (result.low, result.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_paired_without_a_shared_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="one or more"):
        paired({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.2, 0.21, 0.19], "better"),
        ([-0.2, -0.21, -0.19], "worse"),
        ([0.2, -0.21, 0.1], "inconclusive"),
        ([0.2], "inconclusive"),
    ],
)
def test_verdict(values: list[float], words: str) -> None:
    assert verdict(interval(values)) == words
