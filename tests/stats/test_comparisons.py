"""One comparison judged by its end, its area and at equal budgets: the answers may differ."""

from __future__ import annotations

import pytest

from rlzoo.stats.comparisons import judgements
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
    return dear + [trace("cheap", s, [0.2, 0.5, 0.8 - 0.001 * s], tokens=1000) for s in range(seeds)]


def test_who_is_better_depends_on_the_budget() -> None:
    made = judgements(runs())
    assert list(made) == ["final", "area", "updates", "tokens_sampled", "tokens_trained", "engine_s"]
    assert made["final"].pair("dear", "cheap").verdict == "better"
    # At 2,000 sampled tokens cheap has ended with 0.8, and dear is halfway from 0.2 to 0.6.
    tokens = made["tokens_sampled"].pair("dear", "cheap")
    assert tokens.verdict == "worse" and tokens.difference.mean == pytest.approx(0.4 - (0.8 - 0.001 * 2.5))
    assert made["tokens_sampled"].measure == "accuracy at 2.00k sampled tokens"
    assert made["engine_s"].measure == "accuracy at 0:03 of engine time"
    # Over 20 steps: (0.2 + 2 * 0.6 + 0.9) / 4 against (0.2 + 2 * 0.5 + 0.8 - 0.001 * 2.5) / 4
    area = made["area"]
    assert area.measure == "accuracy over 20 steps"
    assert area.pair("dear", "cheap").difference.mean == pytest.approx(0.575 - 0.5 + 0.001 * 2.5 / 4)


def test_failed_runs_count_as_they_ended_and_as_collapses() -> None:
    table = [*runs()[:-1], trace("cheap", 5, [0.2, 0.3], tokens=1000, failed=True)]
    made = judgements(table)
    rates = {s.algorithm: s.collapse_rate for s in made["final"].standings}
    assert rates == {"dear": 0.0, "cheap": pytest.approx(1 / 6)}
    assert all(judgement.pair("dear", "cheap").n == 6 for judgement in made.values())
    assert made["final"].standings[1].worst == pytest.approx(0.3 + 0.001 * 2)


def test_runs_that_have_hardly_begun() -> None:
    begun = [trace("a", 0, [0.2], tokens=10), trace("b", 0, [0.2, 0.3], tokens=10)]
    assert list(judgements(begun)) == ["final", "engine_s"]  # no update yet; the first evaluation took a second
    assert judgements([trace("a", 0, [], tokens=10)]) == {}


def test_the_margin_is_passed_on() -> None:
    assert {judgement.margin for judgement in judgements(runs(), margin=0.2).values()} == {0.2}
    assert judgements(runs(), margin=0.2)["final"].pair("dear", "cheap").verdict == "equivalent"
