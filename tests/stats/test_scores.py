"""Scores of single runs, on curves whose areas and crossings can be seen."""

from __future__ import annotations

import pytest

from rlzoo.stats.scores import (
    AXES,
    Trace,
    area,
    at,
    collapsed,
    common_budget,
    final,
    final_scores,
    gains,
    problems_of,
    tabulate,
)
from rlzoo.store.outcomes import pack


def trace(*accuracies: float, seed: int = 0, tokens: int = 100, failed: bool = False) -> Trace:
    """Evaluations at steps 0, 10, 20, ..., `tokens` sampled per ten steps; training records between them."""
    records = []
    for i, accuracy in enumerate(accuracies):
        counted = {"step": 10 * i, "updates": 40 * i, "tokens_sampled": tokens * i, "tokens_trained": tokens * i}
        records.append({"kind": "train", "accuracy": 0.123, "engine_s": 2.0 * i} | counted)
        records.append({"kind": "eval", "accuracy": accuracy, "engine_s": 1 + 2.0 * i} | counted)
    return Trace("x", seed, records, failed)


def test_five_places_share_one_score_and_failed_seeds_count() -> None:
    """A run that fails at 30% is part of its row's mean; a test evaluation goes before those of the curve."""
    right = [1.0] * 3 + [0.0] * 7
    failed = Trace("x", 1, [*trace(0.2, 0.9).records, {"kind": "test", "accuracy": 0.3, "outcomes": pack(right)}], True)
    scores = final_scores([trace(0.2, 0.9), failed])
    assert scores["x"][0] == 0.9 and list(scores["x"][1]) == right
    assert final(failed) == 0.3 and problems_of(failed.tests[-1]) == 10
    gain = gains([trace(0.2, 0.9), trace(0.2, 0.4, seed=1, failed=True)])["x"]
    assert gain.mean == pytest.approx((0.7 + 0.2) / 2) and gain.seeds == 2


def test_final_is_the_last_evaluation() -> None:
    assert final(trace(0.2, 0.4, 0.9)) == 0.9
    assert final(trace()) is None


@pytest.mark.parametrize(
    ("axis", "budget", "accuracy"),
    [
        ("step", 0, 0.2),
        ("step", 5, 0.3),  # halfway from 0.2 to 0.4
        ("step", 20, 0.9),
        ("updates", 60, 0.65),  # halfway from 0.4 to 0.9
        ("tokens_sampled", 125, 0.525),  # a quarter of that way
        ("engine_s", 1, 0.2),
        ("engine_s", 0.5, None),  # before the first evaluation had ended
        ("step", 20.1, None),  # never beyond the last one
    ],
)
def test_accuracy_at_a_budget(axis: str, budget: float, accuracy: float | None) -> None:
    assert at(trace(0.2, 0.4, 0.9), axis, budget) == (None if accuracy is None else pytest.approx(accuracy))


def test_area_by_hand() -> None:
    run = trace(0.2, 0.4, 0.9)
    # Trapezoids: (0.2 + 0.4) / 2 = 0.3 and (0.4 + 0.9) / 2 = 0.65, equally wide.
    assert area(run, "step", 20) == pytest.approx(0.475)
    # Up to 125 tokens: 100 at 0.3, then 25 at (0.4 + 0.525) / 2 = 0.4625.
    assert area(run, "tokens_sampled", 125) == pytest.approx((100 * 0.3 + 25 * 0.4625) / 125)
    assert area(run, "step", 0) == 0.2 and area(run, "step", 21) is None


@pytest.mark.parametrize("axis", AXES)
def test_the_area_of_a_constant_is_the_constant(axis: str) -> None:
    assert area(trace(0.7, 0.7, 0.7), axis, 4.5) == pytest.approx(0.7)


def test_of_evaluations_at_one_position_the_last_counts() -> None:
    """A step whose prompts were all discarded makes no update: the axis stands still."""
    run = trace(0.2, 0.4, 0.6)
    stuck = Trace("x", 0, [dict(record, updates=min(record["updates"], 40)) for record in run.records])
    assert at(stuck, "updates", 40) == 0.6
    assert area(stuck, "updates", 40) == pytest.approx(0.4)


def test_a_failed_run_stays_at_its_last_accuracy_and_limits_no_one() -> None:
    run = trace(0.2, 0.4, failed=True)
    assert at(run, "step", 10) == at(run, "step", 40) == final(run) == 0.4
    assert area(run, "step", 40) == pytest.approx((10 * 0.3 + 30 * 0.4) / 40)
    assert common_budget([run, trace(0.2, 0.4, 0.9)], "step") == 20
    assert common_budget([run], "step") is None


def test_the_common_budget_is_that_of_the_thriftiest() -> None:
    assert common_budget([trace(0.2, 0.4, tokens=100), trace(0.2, 0.4, tokens=300)], "tokens_sampled") == 100


@pytest.mark.parametrize(
    ("run", "lost"),
    [
        (trace(0.3, 0.9, 0.81), False),  # nine points below its best
        (trace(0.3, 0.9, 0.75), True),  # 15 points, and two standard errors of 128 problems are 9.3
        (trace(0.3, 0.9, 0.81 - 0.02), True),
        (trace(0.3, 0.31, 0.29), False),  # one problem of 128 below where it began
        (trace(0.3, 0.31, 0.15), True),  # 15 points below; two standard errors are 10.3
        (trace(0.3, 0.3), False),
        (trace(0.3, 0.9, failed=True), True),
        (trace(failed=True), True),
        (trace(), False),
    ],
)
def test_collapse(run: Trace, lost: bool) -> None:
    assert collapsed(run) == lost


def test_a_table_leaves_out_runs_without_a_score() -> None:
    runs = [Trace("b", 1, trace(0.5).records), Trace("a", 0, trace(0.1, 0.2).records), Trace("b", 0, [])]
    assert tabulate(runs, final) == {"b": {1: 0.5}, "a": {0: 0.2}}
