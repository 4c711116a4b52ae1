"""Interquartile mean, performance profile and improvement over tasks: by hand and by the numbers of rliable's tests."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlzoo.stats.aggregates import improvement, interquartile_mean, matrix, profile, resampled

X = np.array([[1.0, 2.0], [2.0, 2.0], [1.0, 1.0], [2.0, 1.0]])
Y = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
"""The matrices [runs, tasks] of rliable's tests/rliable/metrics_test.py, and below the values it expects of them."""


def test_the_numbers_of_rliable_s_own_tests() -> None:
    assert interquartile_mean(X).mean == 1.5 and interquartile_mean(Y).mean == 2.0
    assert improvement(X, Y).mean == pytest.approx(1 / 3)
    steps = np.arange(80.0).reshape(5, 16)  # tests/library_test.py; 1 to 79 are above 0 to 0.5, 2 to 79 above 1
    assert profile(steps, [0.0, 0.25, 0.5, 1.0]).share == pytest.approx([79 / 80, 79 / 80, 79 / 80, 78 / 80])


def test_the_middle_half_by_hand() -> None:
    """Eight scores, two cut off at each end: (0.3 + 0.4 + 0.5 + 0.6) / 4. One task's failure does not move it."""
    scores = np.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8]])
    assert interquartile_mean(scores).mean == pytest.approx(0.45)
    failed = scores.copy()
    failed[0, 0] = 0.0
    assert interquartile_mean(failed).mean == pytest.approx(0.45)


def test_improvement_by_hand() -> None:
    """Task one: 0.5 above 0.4 and 0.3, 0.4 ties with 0.4 and is above 0.3: 3.5 of 4. Task two: none of 4."""
    a, b = [[0.5, 0.1], [0.4, 0.1]], [[0.4, 0.9], [0.3, 0.8]]
    found, back = improvement(a, b), improvement(b, a)
    assert found.mean == pytest.approx((3.5 / 4 + 0) / 2) and back.mean == pytest.approx(1 - found.mean)
    assert improvement(a, a).mean == 0.5
    assert improvement([[0.9, 0.9]], [[0.1, 0.1]]).low is None  # one run has no interval


def test_runs_are_drawn_within_their_task() -> None:
    """Task one has scores below 1, task two above: no resample mixes them, and each draws all runs equally often."""
    drawn = resampled(np.array([[0.1, 1.1], [0.2, 1.2], [0.3, 1.3]]))
    assert drawn[:, :, 0].max() == 0.3 and drawn[:, :, 1].min() == 1.1
    assert np.mean(drawn[:, :, 0] == 0.2) == pytest.approx(1 / 3, abs=0.02)
    assert np.corrcoef(drawn[:, 0, 0], drawn[:, 0, 1])[0, 1] == pytest.approx(0, abs=0.06)  # tasks independently


def test_the_interval_of_two_runs_is_all_that_can_be_drawn() -> None:
    """Two runs of one task: resamples are (a, a), (a, b), (b, b) with 1/4, 1/2, 1/4, so 95% reaches from a to b."""
    found = interquartile_mean([[0.2], [0.6]])
    assert (found.low, found.mean, found.high) == pytest.approx((0.2, 0.4, 0.6))
    half = interquartile_mean([[0.2], [0.6]], confidence=0.4)  # 30% and 70% lie in the middle half
    assert (half.low, half.high) == pytest.approx((0.4, 0.4))
    above = profile([[0.2], [0.6]], [0.1, 0.5])
    assert above.share == (1.0, 0.5) and above.low == (1.0, 0.0) and above.high == (1.0, 1.0)
    assert profile([[0.2, 0.6]], [0.5]).low is None


def test_the_same_scores_give_the_same_interval() -> None:
    scores = np.random.default_rng(0).random((6, 3))
    assert interquartile_mean(scores) == interquartile_mean(scores.copy())
    assert improvement(scores, scores[::-1]) == improvement(scores, scores[::-1])


def test_refuses_what_is_no_table_of_scores() -> None:
    for wrong in ([0.1, 0.2], [[]], [[math.nan, 0.1]]):
        with pytest.raises(ValueError, match=r"finite numbers, \[runs, tasks\]"):
            matrix(wrong)
    with pytest.raises(ValueError, match="the same tasks"):
        improvement([[0.1, 0.2]], [[0.1]])
