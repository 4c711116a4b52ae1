"""Budgets as text, and how much of one is spent."""

from __future__ import annotations

import pytest

from rlzoo.config.budget import Budget
from rlzoo.report.progress import RunProgress


@pytest.mark.parametrize(
    ("text", "budget", "written"),
    [
        ("tokens=200k", Budget("tokens", 200_000), "tokens=200000"),
        ("tokens=1.5M", Budget("tokens", 1_500_000), "tokens=1500000"),
        ("trained = 2e5", Budget("trained", 200_000), "trained=200000"),
        ("updates=500", Budget("updates", 500), "updates=500"),
        ("seconds=0.5", Budget("seconds", 0.5), "seconds=0.5"),
    ],
)
def test_a_budget_is_read_and_written(text: str, budget: Budget, written: str) -> None:
    assert Budget.parse(text) == budget and str(budget) == written and Budget.parse(written) == budget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens", "such as tokens=200k"),
        ("tokens=", "such as tokens=200k"),
        ("tokens=-5", "such as tokens=200k"),
        ("tokens=many", "such as tokens=200k"),
        ("tokens=0", "above 0"),
        ("tokens=1e999", "finite"),
        ("token=5", "did you mean 'tokens'"),
    ],
)
def test_what_is_no_budget(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget.parse(text)


def test_each_unit_has_its_counter() -> None:
    spent = {"tokens_sampled": 10, "tokens_trained": 20, "updates": 30, "engine_s": 40.0}
    shares = [Budget(unit, 20).share(spent) for unit in ("tokens", "trained", "updates", "seconds")]
    assert shares == [0.5, 1.0, 1.5, 2.0]


def test_progress_expects_as_many_steps_as_the_budget_will_do() -> None:
    run = RunProgress("x/seed0", "x", 0, 100, budget=Budget("tokens", 1000))
    run.update({"kind": "start", "step": 0, "steps": 100})
    assert run.steps == 100
    run.update({"kind": "train", "step": 2, "tokens_sampled": 50})
    assert run.steps == 40  # 1000 / 25 per step
    run.update({"kind": "train", "step": 3, "tokens_sampled": 5})
    assert run.steps == 100  # never more than there can be
    run.update({"kind": "train", "step": 4, "tokens_sampled": 1200})
    assert run.steps == 4  # it is over
