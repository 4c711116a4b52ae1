"""Standard errors over seeds and problems: by hand, against the analysis of variance, and by simulated coverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy import special, stats

from rlzoo.stats.crossed import Estimate, estimate, estimate_scores, noncentrality
from rlzoo.stats.estimates import sampling_variance
from tests.stats.simulated import crossed_normal, solved

TRIALS = 1000


def covered(tables: np.ndarray, of: Callable[[np.ndarray], Estimate]) -> float:
    """How often the 95% interval of a table with true mean 0 holds 0."""
    return float(np.mean([of(table).interval().sign == 0 for table in tables]))


def test_two_seeds_and_three_problems_by_hand() -> None:
    # Means: all 2, by seed 1 and 3, by problem 1, 2, 3. MS_S = 3 (1 + 1) / 1 = 6, MS_P = 2 (1 + 0 + 1) / 2 = 2.
    # Rest: [[0, 1, -1], [0, -1, 1]], MS_E = 4 / 2 = 2. Var = (6 + 0) / 6 = 1 with the degree of freedom of the seeds.
    found = estimate([[0.0, 2.0, 1.0], [2.0, 2.0, 5.0]])
    assert found.mean == 2.0 and found.error == pytest.approx(1.0) and found.df == pytest.approx(1.0)
    # var(S) = (6 - 2) / 3, var(P) = (2 - 2) / 2 = 0, var(E) = 2
    assert (found.of_seeds, found.of_problems, found.of_rest) == pytest.approx((4 / 3, 0.0, 2.0))
    # Squared error: 4/3 / 2 = 2/3 from seeds and 2 / 6 = 1/3 from the rest.
    assert found.shares == pytest.approx({"seeds": 2 / 3, "problems": 0.0, "rest": 1 / 3})
    assert found.error_with(2, 3) == pytest.approx(1.0) and found.error_with(4, 6) == pytest.approx(math.sqrt(5 / 12))


def test_the_variances_are_unbiased() -> None:
    tables = crossed_normal(np.random.default_rng(0), 400, 6, 40, seeds=0.3, problems=0.5, rest=0.8)
    found = [estimate(table) for table in tables]
    means = [float(np.mean([getattr(one, name) for one in found])) for name in ("of_seeds", "of_problems", "of_rest")]
    assert means == pytest.approx([0.09, 0.25, 0.64], rel=0.08)


def test_where_problems_vary_as_the_rest_does_it_is_the_paired_t_test() -> None:
    """MS_P = MS_E = 2 in the table above, so nothing of the error is of problems: t of the seeds' means 1 and 3."""
    found = estimate([[0.0, 2.0, 1.0], [2.0, 2.0, 5.0]])
    assert found.difference_p() == pytest.approx(stats.ttest_1samp([1.0, 3.0], 0).pvalue, rel=1e-6)
    low, high = stats.ttest_1samp([1.0, 3.0], 0).confidence_interval()
    one = found.interval()
    assert (one.low, one.high) == (pytest.approx(low), pytest.approx(high))


def test_the_squared_error_is_unbiased_where_problems_make_no_difference() -> None:
    """True variance of the mean: 0.09 / 4 + 1 / (4 * 8). With MS_P - MS_E held at 0 or above it was 14% too large."""
    tables = crossed_normal(np.random.default_rng(5), 4000, 4, 8, seeds=0.3, problems=0.0, rest=1.0)
    squares = [(estimate(table).error or 0) ** 2 for table in tables]
    assert np.mean(squares) == pytest.approx(0.09 / 4 + 1 / 32, rel=0.04)


def test_of_several_tasks_each_problem_is_compared_with_its_own_task() -> None:
    """Tasks of means 1.5 and 7: as one task of five problems that is a difference of problems, as two it is none.

    By hand, tasks [[0, 2], [2, 2]] and [[5, 7, 6], [7, 7, 10]]: seeds 4 and 5.6, mean 4.8, MS_S = 5 * 2 * 0.64 = 6.4.
    Problems: task one -0.5, 0.5, task two -1, 0, 1 around 6, 7, 8; n * (0.5 + 2) / (5 - 2) = 5/3.
    Rest: task one +-0.5 in four cells, 1; task two [[0, 1, -1], [0, -1, 1]], 4; 5 / ((2 - 1) (5 - 2)) = 5/3.
    """
    table = [[0.0, 2.0, 5.0, 7.0, 6.0], [2.0, 2.0, 7.0, 7.0, 10.0]]
    found = estimate(table, (2, 3))
    assert (found.mean, found.of_rest, found.of_problems) == pytest.approx((4.8, 5 / 3, 0.0))
    assert found.error == pytest.approx(math.sqrt(6.4 / 10)) and found.seed_share == 1.0
    together = estimate(table)  # problems 1, 2, 6, 7, 8 around 4.8: MS_P = 2 * 38.8 / 4 = 19.4, MS_E = 5.6 / 4
    assert together.error == pytest.approx(math.sqrt((6.4 + 19.4 - 1.4) / 10))
    with pytest.raises(ValueError, match="two or more to each"):
        estimate(table, (1, 4))


@pytest.mark.parametrize(("n", "m"), [(4, 128), (4, 1024), (8, 128), (16, 128), (16, 512)])
@pytest.mark.parametrize("level", [0.8, 2.6])
def test_the_interval_covers_the_task_and_not_only_its_problems(n: int, m: int, level: float) -> None:
    """Right or wrong at 70% and at 93%: 93 to 97% with 1.6 points for the error of a share of 1,000 trials."""
    trials = min(TRIALS, 2_000_000 // (n * m) * 2)
    tables = solved(np.random.default_rng(n * m), trials, n, m, level, seeds=0.15, problems=0.4)
    room = 2.3 * math.sqrt(0.05 * 0.95 / trials)
    assert 0.93 - room < covered(tables, estimate) < 0.97 + room


def test_an_interval_over_seeds_alone_does_not() -> None:
    tables = solved(np.random.default_rng(2), TRIALS, 16, 128, 2.6, seeds=0.05, problems=0.4)
    assert covered(tables, lambda table: estimate_scores(list(table.mean(axis=1)))) < 0.88
    assert covered(tables, estimate) > 0.93


def test_no_spread_is_no_special_case() -> None:
    """Seeds that agree by chance: the p-value moves by little when one of them moves by one outcome in 400."""
    table = np.zeros((4, 400))
    table[:, :20] = 1.0
    moved = table.copy()
    moved[3, 20] = 1.0
    same, other = estimate(table), estimate(moved)
    assert same.error is not None and other.error is not None
    assert 0.5 < same.error / other.error < 2
    # One number per seed: floor 0.117 of the variance of a share of 128 problems, 0.9 * 0.1 / 128.
    few = estimate_scores([0.05] * 4, smallest=2 * 0.09 / 128)
    assert few.error == pytest.approx(math.sqrt(2 * 0.09 / 128 * stats.chi2.ppf(0.05, 3) / 3 / 4))
    assert estimate_scores([0.0] * 4, 0.0014).difference_p() == 1.0


def test_equivalence_by_hand() -> None:
    # Mean 0.01, s = 0.01, n = 4: standard error 0.005. From -0.02 the mean is 6 errors away, from +0.02 two.
    d = [0.01 + 0.01 * math.sqrt(3) / 2 * sign for sign in (1, 1, -1, -1)]
    found = estimate_scores(d)
    assert found.equivalence_p(0.02) == pytest.approx(stats.t.sf(2, 3))
    assert estimate_scores([-x for x in d]).equivalence_p(0.02) == pytest.approx(stats.t.sf(2, 3))


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    for n, level, power in ((4, 0.05, 0.8), (8, 0.005, 0.8), (16, 0.05, 0.5)):
        true = noncentrality(n - 1, level, power) / math.sqrt(n)
        d = np.random.default_rng(3).normal(true, 1.0, size=(20_000, n))
        t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / math.sqrt(n))
        assert np.mean(t > special.stdtrit(n - 1, 1 - level / 2)) == pytest.approx(power, abs=0.012)
    d = [0.1, 0.2, 0.4]
    assert estimate_scores(d).detectable() == pytest.approx(noncentrality(2, 0.05, 0.8) * np.std(d, ddof=1) / 3**0.5)


def test_shares_stay_inside_0_to_100_percent() -> None:
    near = estimate_scores([1.0, 1.0, 0.9])
    plain, share = near.interval(), near.share()
    assert plain.high is not None and plain.high > 1
    assert share.low is not None and share.high is not None and 0 < share.low < near.mean < share.high < 1
    inside = estimate_scores([0.5, 0.52, 0.51])
    assert inside.share() == inside.interval()
    assert estimate_scores([1.0, 1.0], 0.001).share().high == 1.0


def test_one_seed_has_no_error() -> None:
    for found in (estimate(np.ones((1, 5))), estimate_scores([0.4])):
        assert found.error is None and found.interval().low is None and found.shares is None
        assert found.difference_p() is found.equivalence_p(0.02) is found.detectable() is None


def test_refuses_what_has_no_mean() -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate([[0.0, math.nan]])
    with pytest.raises(ValueError, match="finite"):
        estimate_scores([])
    with pytest.raises(ValueError, match="two problems or more"):
        estimate([[1.0], [0.0]])


def test_each_part_of_the_error_has_its_own_critical_value() -> None:
    """At 5%, t = 3.182446 with 4 seeds and 1.962339 with 1,001 problems; half of the squared error is each's."""
    found = Estimate(0.1, 0.02, 3, 4, 1001, seed_share=0.5)
    half = math.sqrt(0.5 * 3.182446**2 + 0.5 * 1.962339**2) * 0.02
    assert found.interval().high == pytest.approx(0.1 + half, abs=1e-7)
    p = found.difference_p()
    assert p is not None and found.critical(p / 2) == pytest.approx(5.0)  # 0.1 / 0.02
    assert found.tail(-2.0) == pytest.approx(1 - found.tail(2.0)) and found.tail(0.0) == 0.5
    alone = Estimate(0.1, 0.02, 3, 4, 1001)  # all of seeds: the plain t test
    assert alone.tail(3.182446) == pytest.approx(0.025, abs=1e-7)


def test_a_family_of_ten_with_four_seeds_keeps_its_level() -> None:
    """Ten pairs of five equally good rows, 4 seeds, 1,024 problems: at most 5% false alarms, 13% by Satterthwaite."""
    rng = np.random.default_rng(11)
    wrong = 0
    for _ in range(300):
        difficulty, better = rng.normal(1.2, 1.5, 1024), rng.normal(0, 0.28, (5, 1, 1024))
        logit = difficulty + better + rng.normal(0, 0.15, (5, 4, 1)) + rng.normal(0, 0.5, (5, 4, 1024))
        rows = (logit > np.log(1 / rng.random(1024) - 1)).astype(float)
        wrong += any((estimate(a - b).difference_p() or 0) < 0.05 / 10 for a, b in combinations(rows, 2))
    assert wrong <= 0.05 * 300 + 2 * math.sqrt(300 * 0.05 * 0.95)


def test_where_all_error_is_of_problems_the_detectable_difference_has_their_degrees_of_freedom() -> None:
    """4 seeds (df 3), 1,000 problems: the critical value is that of t with 999 degrees, so the power is too."""
    found = Estimate(mean=0.1, error=0.02, df=3.0, seeds=4, problems=1000, seed_share=0.0)
    assert found.detectable() == pytest.approx(noncentrality(999.0, 0.05, 0.8) * 0.02, rel=1e-6)
    assert found.detectable() < 0.8 * noncentrality(3.0, 0.05, 0.8) * 0.02  # type: ignore[operator]


@pytest.mark.parametrize(("mean", "p"), [(1.0, 99 / 100), (0.0, 1 / 100), (0.5, 50 / 100)])
def test_the_variance_of_a_share_has_one_right_and_one_wrong_added(mean: float, p: float) -> None:
    """Of 98 problems: p = (98 mean + 1) / 100, so 99/100, 1/100, 50/100; the variance is p (1 - p) / 98."""
    assert sampling_variance(mean, 98) == pytest.approx(p * (1 - p) / 98, rel=1e-12)
