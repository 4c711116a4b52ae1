"""What would settle a pair: the numbers it names do settle it in simulation."""

from __future__ import annotations

import numpy as np
import pytest

from rlzoo.stats.crossed import Estimate, estimate
from rlzoo.stats.power import Settled, detectable, pooled, settled
from tests.stats.simulated import crossed_normal


def test_seeds_settle_what_seeds_blur_and_problems_what_problems_blur() -> None:
    # Nearly all of the variance is of problems: 2 points are lost among 200 problems of standard deviation 0.3.
    by_problems = Estimate(0.05, 0.0215, 7, 8, 200, of_seeds=1e-6, of_problems=0.09, of_rest=0.01)
    found = settled(by_problems, 0.02, 0.05)
    assert found is not None and found.seeds is None and found.problems is not None and 200 < found.problems < 600
    by_seeds = Estimate(0.05, 0.03, 7, 8, 1000, of_seeds=0.0064, of_problems=0.001, of_rest=0.02)
    found = settled(by_seeds, 0.02, 0.05)
    assert found is not None and found.seeds is not None and 8 < found.seeds < 40 and found.problems is None
    assert found.words == f"About {found.seeds} seeds would settle it; more problems alone would not."
    assert Settled(None, None).words == "Neither 200 seeds nor more problems would settle it."
    assert Settled(12, 3000).words == "About 12 seeds or 3,000 problems would settle it."
    assert settled(Estimate(0.1, None, 0, 1, 10), 0.02, 0.05) is None


@pytest.mark.parametrize("mean", [0.05, 0.0])
def test_that_many_seeds_do_settle_it_four_times_in_five(mean: float) -> None:
    """A difference of 5 points is found, and none of 0 points is shown to be within 5."""
    margin = 0.05
    spreads = {"seeds": 0.05, "problems": 0.3, "rest": 0.3}
    truth = Estimate(mean, 0.03, 3, 4, 400, of_seeds=0.0025, of_problems=0.09, of_rest=0.09)
    found = settled(truth, margin, 0.05)
    assert found is not None and found.seeds is not None
    tables = mean + crossed_normal(np.random.default_rng(4), 300, found.seeds, 400, **spreads)
    many = [estimate(table) for table in tables]
    p = [one.difference_p() if mean else one.equivalence_p(margin) for one in many]
    assert np.mean(np.array(p, np.float64) < 0.05) > 0.72  # 0.8 less three standard errors of 300 trials


def test_a_plan_is_made_from_mean_variances() -> None:
    one = Estimate(0.0, 0.02, 3, 4, 100, of_seeds=0.001, of_problems=0.02, of_rest=0.1)
    two = Estimate(0.1, 0.04, 3, 4, 100, of_seeds=0.003, of_problems=0.04, of_rest=0.3)
    plan = pooled([one, two, Estimate(0.0, None, 0, 1, 100)])
    assert (plan.of_seeds, plan.of_problems, plan.of_rest) == pytest.approx((0.002, 0.03, 0.2))
    assert detectable(plan, 16, 1000, 0.05) < detectable(plan, 8, 1000, 0.05) < detectable(plan, 8, 100, 0.05)
    with pytest.raises(ValueError, match="two seeds"):
        pooled([Estimate(0.0, None, 0, 1, 100)])
