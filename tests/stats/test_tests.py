"""Tests, corrections and intervals, against scipy, closed forms, plain loops and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from rlzoo.stats.intervals import interval
from rlzoo.stats.tests import (
    bootstrap_mean,
    detectable,
    difference_p,
    equivalence_p,
    holm,
    improvement,
    interquartile_mean,
)


def test_the_p_value_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=7), rng.normal(size=7)
    assert difference_p(a - b) == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    # Two values: t(1) is Cauchy. Mean 2, s = sqrt(2), standard error 1: t = 2, p = 1 - (2 / pi) atan 2.
    assert difference_p([1.0, 3.0]) == pytest.approx(1 - 2 / math.pi * math.atan(2))


@pytest.mark.parametrize("n", [2, 4, 8])
def test_differences_without_spread_have_the_p_value_of_sign_flips(n: int) -> None:
    flips = scipy_stats.permutation_test(
        ([0.25] * n,), np.mean, permutation_type="samples", n_resamples=2**n, alternative="two-sided"
    )
    assert difference_p([0.25] * n) == pytest.approx(flips.pvalue) == pytest.approx(2.0 ** (1 - n))
    assert difference_p([0.0] * n) == 1.0
    assert difference_p([0.9 - 0.8, 0.8 - 0.7] * n) == 2.0 ** (1 - 2 * n)  # unequal only by rounding
    assert equivalence_p([0.01] * n, 0.02) == 2.0**-n
    assert equivalence_p([-0.02] * n, 0.02) == equivalence_p([0.3] * n, 0.02) == 1.0


def test_without_that_rule_two_seeds_would_raise_false_alarms() -> None:
    """Accuracies near the ceiling are shares of the same 256 prompts: two differences are often the same number."""
    rng = np.random.default_rng(7)
    a, b = np.round(256 * np.clip(1 - rng.gamma(0.7, 0.01, (2, 3000, 2)), 0, 1)) / 256
    same = np.ptp(a - b, axis=1) == 0
    p = np.array([difference_p(d) for d in a - b])
    infinite = same & ((a - b)[:, 0] != 0)  # where t would be, and its p-value 0
    assert np.mean(p < 0.05) < 0.05 < np.mean((p < 0.05) | infinite)


def test_two_one_sided_tests_by_hand() -> None:
    # Mean 0.01, s = 0.01, n = 4: standard error 0.005. From -0.02 the mean is 6 errors away, from +0.02 two.
    d = [0.01 + 0.01 * math.sqrt(3) / 2 * sign for sign in (1, 1, -1, -1)]
    assert np.std(d, ddof=1) == pytest.approx(0.01)
    assert equivalence_p(d, 0.02) == pytest.approx(scipy_stats.t.sf(2, 3))
    assert equivalence_p([-x for x in d], 0.02) == pytest.approx(scipy_stats.t.sf(2, 3))


def test_equivalence_is_the_ninety_percent_interval_within_the_margin() -> None:
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(200):
        d = rng.normal(0.005, 0.01, size=5)
        one = interval(list(d), 0.9)
        assert one.low is not None and one.high is not None
        inside = one.low > -0.02 and one.high < 0.02
        assert (equivalence_p(d, 0.02) < 0.05) == inside
        outcomes.add(inside)
    assert outcomes == {True, False}


def test_holm_by_hand() -> None:
    # Sorted: 0.01, 0.02, 0.03, 0.5, times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5. The third may not fall below the second.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.03]) == [0.03] and holm([]) == []


def test_holm_rejects_what_stepping_down_rejects() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        p = rng.beta(0.3, 2, size=rng.integers(1, 9))
        rejected = set()
        for rank, i in enumerate(np.argsort(p)):
            if p[i] >= 0.05 / (len(p) - rank):
                break
            rejected.add(i)
        assert {i for i, q in enumerate(holm(list(p))) if q < 0.05} == rejected


@pytest.mark.parametrize(("n", "level", "power"), [(2, 0.05, 0.8), (4, 0.05, 0.8), (8, 0.005, 0.8), (16, 0.05, 0.5)])
def test_the_detectable_difference_is_found_as_often_as_it_says(n: int, level: float, power: float) -> None:
    std, trials = 0.03, 20_000
    true = detectable(std, n, level, power)
    d = np.random.default_rng(3).normal(true, std, size=(trials, n))
    t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / math.sqrt(n))
    found = np.mean(t > scipy_stats.t.isf(level / 2, n - 1))
    assert found == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / trials))


def test_many_seeds_detect_what_the_normal_distribution_says() -> None:
    # n -> infinity: (z(0.975) + z(0.8)) std / sqrt(n) = (1.959964 + 0.841621) std / sqrt(n)
    assert detectable(0.5, 10_000) == pytest.approx(2.801585 * 0.5 / 100, rel=1e-3)
    assert detectable(0.5, 8, level=0.05 / 10) > detectable(0.5, 8)


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


def test_bootstrap_is_scipys_and_always_the_same() -> None:
    d = np.random.default_rng(4).normal(size=9)
    one = bootstrap_mean(d)
    assert one == bootstrap_mean(d) and one.mean == pytest.approx(d.mean())
    limits = scipy_stats.bootstrap((d,), np.mean, n_resamples=20_000).confidence_interval
    assert one.low == pytest.approx(limits.low, abs=0.05) and one.high == pytest.approx(limits.high, abs=0.05)


def test_bootstrap_has_no_limits_without_spread() -> None:
    assert (bootstrap_mean([0.1, 0.1, 0.1]).low, bootstrap_mean([0.1]).high) == (None, None)


@pytest.mark.filterwarnings("error")
def test_bootstrap_has_limits_wherever_there_is_spread() -> None:
    rng = np.random.default_rng(6)
    for n in (2, 3, 4, 8):
        for d in np.round(rng.normal(0, 0.004, size=(50, n)) * 256) / 256:
            one = bootstrap_mean(d)
            if np.ptp(d):
                assert one.low is not None and one.high is not None and one.low <= one.mean <= one.high


def test_interquartile_mean() -> None:
    # Of eight values two are cut at each end: (3 + 4 + 5 + 6) / 4.
    one = interquartile_mean([1.0, 2, 3, 4, 5, 6, 7, 800])
    assert one.mean == 4.5 and one.low is not None and one.high is not None and one.low < 4.5 < one.high
    assert interquartile_mean([1.0, 2, 6]).mean == 3.0  # nothing to cut
    assert interquartile_mean([0.3]).low is None
