"""The A/A control counts what it says, and the verdicts keep their level on known distributions."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibration import (
    KNOWN,
    MARGIN,
    Rate,
    deviation,
    false_alarms,
    from_pool,
    power,
    verdict_table,
    ways_to_test,
    wrong_equivalents,
)


def test_a_rate_and_its_interval() -> None:
    # Wilson at 50 of 1000: centre (50 + z^2 / 2) / (1000 + z^2), z = 1.959964
    low, high = Rate(50, 1000).limits
    z2 = 1.959964**2
    assert (low + high) / 2 == pytest.approx((50 + z2 / 2) / (1000 + z2), rel=1e-6)
    assert str(Rate(50, 1000)) == "5.0 (3.8 to 6.5)"


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("arms", [2, 5])
def test_verdicts_keep_their_level(name: str, arms: int) -> None:
    draw = KNOWN[name][1]
    for n in (2, 4, 8):
        assert false_alarms(draw, arms, n, trials=300).limits[0] < 0.05
        assert wrong_equivalents(draw, n, trials=300).limits[0] < 0.05


def test_a_control_that_could_fail() -> None:
    """Arms that do differ raise the alarm: the count is not always small."""

    def unequal(rng: np.random.Generator, arms: int, n: int) -> np.ndarray:
        return rng.normal(0.5, 0.01, (arms, n)) + 0.1 * np.arange(arms)[:, None]

    assert false_alarms(unequal, 2, 8, trials=200).hits == 200
    assert false_alarms(unequal, 5, 8, trials=20).hits == 20


def test_the_margin_apart_is_not_equivalent_and_nothing_apart_is() -> None:
    def narrow(rng: np.random.Generator, arms: int, n: int) -> np.ndarray:
        return rng.normal(0.5, 0.001, (arms, n))

    assert (
        wrong_equivalents(narrow, 8, trials=1000).limits[0] < 0.05 < wrong_equivalents(narrow, 8, trials=1000).limits[1]
    )

    def pulled(rng: np.random.Generator, arms: int, n: int) -> np.ndarray:
        return narrow(rng, arms, n) - MARGIN * np.arange(arms)[:, None]  # undoes the shift

    assert wrong_equivalents(pulled, 8, trials=100).hits == 100


def test_power_is_as_stated() -> None:
    low, high = power(KNOWN["normal"][1], 0.03, 8, trials=4000).limits
    assert low - 0.02 < 0.8 < high + 0.02
    assert deviation(KNOWN["normal"][1]) == pytest.approx(0.03, rel=0.01)


def test_arms_from_a_pool_share_no_run() -> None:
    draw = from_pool(np.arange(10.0))
    rng = np.random.default_rng(0)
    drawn = [draw(rng, 2, 5) for _ in range(50)]
    assert all(sorted(arms.ravel()) == list(range(10)) for arms in drawn)
    assert len({tuple(arms.ravel()) for arms in drawn}) == 50


def test_the_bootstrap_raises_too_many_alarms_with_four_seeds_and_sign_flips_none() -> None:
    rates = ways_to_test(KNOWN["normal"][1], 4, trials=150)
    assert rates["sign flips"].hits == 0
    assert rates["BCa bootstrap"].limits[0] > 0.1 > rates["t"].limits[1]


def test_the_table_leaves_out_what_there_are_not_enough_runs_for() -> None:
    pool = np.random.default_rng(0).normal(0.8, 0.05, 20)
    *rows, _, told = verdict_table({"x": (from_pool(pool), 0.05, 20)}, trials=100)[2:]
    assert [row.split(" | ")[1] for row in rows] == ["4", "8"]  # two arms of 16 need 32 runs
    assert told.startswith("None of the 5 rates of wrong verdicts are above 5%")
    assert " - " not in rows[0] and rows[1].count("| - |") == 1  # five arms of 8 need 40


def test_the_table_says_so_where_verdicts_are_wrong_too_often() -> None:
    def unequal(rng: np.random.Generator, arms: int, n: int) -> np.ndarray:
        return rng.normal(0.5, 0.01, (arms, n)) + 0.1 * np.arange(arms)[:, None]

    told = verdict_table({"x": (unequal, 0.01, 8)}, trials=50)[-1]
    assert told.startswith("1 of the 2 rates of wrong verdicts is above 5%")  # the alarms; 4 seeds, 2 arms
