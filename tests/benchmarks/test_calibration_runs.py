"""Whole comparisons drawn from a pool of runs: what they are made of, and that false alarms could be seen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.calibration_runs import Design, designs, drawn, lines, outcome
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.stats.scores import Trace, score_of
from tests.stats.simulated import runs
from tests.stats.test_over_tasks import trace

PLAN = Plan.of(CompareConfig.model_validate({"objectives": ["grpo", "gspo"], "seeds": 12, "train": {"steps": 4}}))


def pool(shift: float, seeds: int = 12, problems: int = 400) -> Mapping[str, list[Trace]]:
    rng = np.random.default_rng(5)
    difficulty = rng.normal(0, 1.5, problems)
    made = {row: runs(rng, seeds, difficulty, 0.5 + by) for row, by in (("grpo", 0.0), ("gspo", shift))}
    return {row: [trace(row, seed, list(x)) for seed, x in of.items()] for row, of in made.items()}


def test_a_comparison_has_its_own_seeds_and_problems() -> None:
    """Judged on the problems that the first row solves it is better, on the others worse."""
    a = [trace("grpo", s, [1.0] * 200 + [0.0] * 200) for s in range(4)]
    b = [trace("gspo", s, [0.0] * 200 + [1.0] * 200) for s in range(4)]
    where = {"a": range(200), "b": range(200, 400)}
    assert [outcome(a, b, PLAN, Design(200, (4,)), of) for of in where.values()] == ["better", "worse"]
    assert score_of(a[0].tests[-1]).shape == (400,)  # type: ignore[union-attr]


def test_a_row_against_itself_seldom_differs_and_unlike_rows_do() -> None:
    far = pool(1.5)
    same = drawn(far, ("grpo", "grpo"), PLAN, Design(400, (4,)), 100)
    assert same["better"] + same["worse"] <= 12 and sum(same.values()) == 100
    assert drawn(far, ("gspo", "grpo"), PLAN, Design(400, (4,)), 30)["better"] == 30


def test_a_second_look_comes_only_where_the_first_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, int]] = []

    def primary(traces: list[Trace], plan: Plan, look: int) -> object:
        looked.append((look, len(traces)))
        return type(
            "Said", (), {"pair": lambda *_: type("Pair", (), {"told": "better" if look == 2 else "equivalent"})}
        )()

    monkeypatch.setattr("benchmarks.calibration_runs.primary", primary)
    few = pool(0.0, seeds=8, problems=40)
    assert outcome(few["grpo"], few["gspo"], PLAN, Design(40, (2, 4, 8)), range(40)) == "better"
    assert looked == [(1, 4), (2, 8)]


def test_few_problems_are_refused_and_counted() -> None:
    said = drawn(pool(0.0, problems=100), ("grpo", "gspo"), PLAN, Design(100, (4,)), 20)
    assert said == {"no verdict": 20}


def test_designs_and_lines() -> None:
    assert designs(16, 512) == [Design(m, looks) for m in (256, 512) for looks in ((4,), (8,), (4, 8))]
    assert designs(6, 60) == [Design(60, (3,))]
    table = list(lines(pool(0.0, seeds=4, problems=60), PLAN, 20))
    assert [line[:3] for line in table] == [
        [rows, "60", "2"] for rows in ("grpo against grpo", "gspo against gspo", "grpo against gspo")
    ]
