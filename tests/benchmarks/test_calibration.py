"""The calibration counts correctly, and could fail."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import (
    TASKS,
    Rate,
    Task,
    coverage,
    false_alarms,
    looks,
    over_seeds,
    power,
    wrong_equivalents,
)


def test_a_rate_and_its_interval() -> None:
    # Wilson at 50 of 1000: centre (50 + z^2 / 2) / (1000 + z^2), z = 1.959964
    low, high = Rate(50, 1000).limits
    z2 = 1.959964**2
    assert (low + high) / 2 == pytest.approx((50 + z2 / 2) / (1000 + z2), rel=1e-6)
    assert str(Rate(50, 1000)) == "5.0 (3.8 to 6.5)"


@pytest.mark.parametrize("name", TASKS)
def test_verdicts_keep_their_level(name: str) -> None:
    assert false_alarms(TASKS[name], 2, 8, 128, trials=300).limits[0] < 0.05
    assert wrong_equivalents(TASKS[name], 8, 128, trials=300).limits[0] < 0.05
    assert coverage(TASKS[name], 4, 128, trials=300).limits[1] > 0.95


def test_seeds_alone_fail_where_problems_differ() -> None:
    draw = TASKS["unlike problems"]
    assert coverage(draw, 16, 128, 200, over_seeds).limits[1] < 0.9 < coverage(draw, 16, 128, 400).limits[1]


def test_a_control_that_could_fail() -> None:
    """Arms that do differ raise the alarm: the count is not always small."""

    def unequal(rng: np.random.Generator, arms: int, n: int, m: int) -> np.ndarray:
        shift = 3.0 * np.arange(arms)[:, None, None]
        return (Task("", 0.0, 0.1, 0.1)(rng, arms, n, m) + shift > 0.5).astype(float)

    assert false_alarms(unequal, 2, 8, 128, trials=30).hits == 30
    assert false_alarms(unequal, 5, 4, 128, trials=10).hits == 10


def test_power_is_as_stated() -> None:
    low, high = power(TASKS["middling"], 16, 128, trials=300).limits
    assert low - 0.05 < 0.8 < high + 0.05


def test_looks_without_spending_raise_more_alarms() -> None:
    naive, careful = (looks(TASKS["one algorithm"], 128, 200, spending) for spending in (False, True))
    assert careful.hits < naive.hits and careful.limits[0] < 0.05
