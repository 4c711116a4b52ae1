"""Accuracies at equal budgets: a table, and no verdict."""

from __future__ import annotations

import pytest

from rlzoo.stats.comparisons import costs, lost
from rlzoo.stats.scores import Trace


def trace(algorithm: str, seed: int, accuracies: list[float], tokens: int, failed: bool = False) -> Trace:
    records = [
        {
            "kind": "eval",
            "step": 10 * i,
            "accuracy": accuracy + 0.001 * (seed % 3),
            "updates": 40 * i,
            "tokens_sampled": tokens * i,
            "tokens_trained": 100 * i,
            "engine_s": 1.0 + i,
        }
        for i, accuracy in enumerate(accuracies)
    ]
    return Trace(algorithm, seed, records, failed)


def runs(seeds: int = 6) -> list[Trace]:
    """One that ends higher and pays four times the tokens, and one that ends lower."""
    dear = [trace("dear", s, [0.2, 0.6, 0.9], tokens=4000) for s in range(seeds)]
    return dear + [trace("cheap", s, [0.2, 0.5, 0.8], tokens=1000) for s in range(seeds)]


def test_the_order_depends_on_the_budget() -> None:
    found = costs(runs())
    assert list(found) == ["area", "updates", "tokens_sampled", "tokens_trained", "engine_s"]
    # At 2,000 sampled tokens cheap has ended with 0.8, and dear is halfway from 0.2 to 0.6; seeds add 0.001 on average.
    tokens = found["tokens_sampled"]
    assert tokens.measure == "accuracy at 2.00k sampled tokens"
    assert tokens.means["dear"].mean == pytest.approx(0.401) and tokens.means["cheap"].mean == pytest.approx(0.801)
    assert found["updates"].means["dear"].mean == pytest.approx(0.901)
    assert found["engine_s"].measure == "accuracy at 0:03 of engine time"
    # Over 20 steps: (0.2 + 2 * 0.6 + 0.9) / 4
    assert found["area"].measure == "accuracy over 20 steps"
    assert found["area"].means["dear"].mean == pytest.approx(0.576)


def test_failed_runs_count_as_they_ended() -> None:
    table = [*runs()[:-1], trace("cheap", 5, [0.2, 0.3], tokens=1000, failed=True)]
    found = costs(table)
    # The failed run stays at 0.302 and the others are at 0.8 and up to 0.002 more.
    assert found["updates"].means["cheap"].mean == pytest.approx((0.8 + 0.801 + 0.802 + 0.8 + 0.801 + 0.302) / 6)
    assert all(one.means["cheap"].n == 6 for one in found.values())


def test_runs_that_have_hardly_begun() -> None:
    begun = [trace("a", 0, [0.2], tokens=10), trace("b", 0, [0.2, 0.3], tokens=10)]
    assert list(costs(begun)) == ["engine_s"]  # no update yet; the first evaluation took a second
    assert costs([trace("a", 0, [], tokens=10)]) == {}


def test_the_seeds_that_collapsed_are_those_that_end_below_where_they_began() -> None:
    traces = [trace("a", 0, [0.2, 0.6], 100), trace("a", 1, [0.6, 0.1], 100), trace("b", 0, [0.2], 100, failed=True)]
    assert lost(traces) == {"a": {1}, "b": {0}}
