"""What has no verdict: each precondition by its name, with data that would have had one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlzoo.config.plan import Plan
from rlzoo.stats.comparisons import primary
from rlzoo.stats.preconditions import identical, refuse_all, tokens
from rlzoo.stats.scores import Trace
from rlzoo.stats.sentences import sentences
from rlzoo.store.outcomes import pack

PROBLEMS = 400


def plan(*rows: str, seeds: int = 5, **changes: Any) -> Plan:
    table = {
        "rows": rows or ("a", "b"),
        "task": "add:medium",
        "model": "shipped",
        "seeds": range(seeds),
        "problems": PROBLEMS,
        "steps": 20,
        "endpoint": "steps",
        "rate": "at lr 0.0007 for all",
        "margin": 0.02,
    }
    return Plan.model_validate(table | changes)


def trace(
    algorithm: str,
    seed: int,
    after: float = 0.8,
    *,
    before: float = 0.3,
    tokens: int = 1000,
    problems: int = PROBLEMS,
    updates: int = 80,
    silent: float = 0.1,
    gradient: float | None = None,
    failed: bool = False,
    ended: str = "steps",
    evaluations: tuple[int, ...] = (0, 10, 20),
) -> Trace:
    """A run of 20 steps that moves from `before` to `after` in a concave curve."""
    rng = np.random.default_rng([seed, len(algorithm), sum(map(ord, algorithm))])
    noise = np.random.default_rng(0).random(problems)
    own = rng.normal(0, 0.01)

    def costs(step: int) -> dict[str, Any]:
        share = step / 20
        return {
            "step": step,
            "updates": round(updates * share),
            "tokens_sampled": tokens * step,
            "tokens_trained": tokens * step,
            "engine_s": float(step),
        }

    records: list[dict[str, Any]] = []
    for step in range(21):
        if step:
            told = rng.random() if gradient is None else gradient * step
            row = {"reward": told, "entropy": told, "length": 5.0, "gradient_norm": told, "silent_groups": silent}
            records.append({"kind": "train", **row, **costs(step)})
        accuracy = before + (after - before) * (1 - 0.8**step) / (1 - 0.8**20)
        right = (noise < accuracy + (own if step else 0)).astype(float)
        if step in evaluations:
            records.append({"kind": "eval", "accuracy": right.mean(), "outcomes": pack(right), **costs(step)})
        if step in (0, 20):
            records.append({"kind": "test", "accuracy": right.mean(), "outcomes": pack(right), **costs(step)})
    return Trace(algorithm, seed, records, failed, ended)


def rows(seeds: int = 5, **of_b: Any) -> list[Trace]:
    return [trace("a", s) for s in range(seeds)] + [trace("b", s, **{"after": 0.6} | of_b) for s in range(seeds)]


def refused(traces: list[Trace], of: Plan | None = None) -> str | None:
    judgement = primary(traces, of or plan())
    if judgement.refusal is not None:
        assert all(pair.verdict is None for pair in judgement.pairs)
        assert sentences(judgement)[0].startswith("No verdict: ")
        return judgement.refusal.name
    (pair,) = judgement.pairs
    assert (pair.verdict is None) == (pair.refusal is not None)
    return None if pair.refusal is None else pair.refusal.name


def test_with_all_of_them_there_is_a_verdict() -> None:
    judgement = primary(rows(), plan())
    assert judgement.refusal is None and judgement.pair("a", "b").verdict == "better"
    assert "add:medium (400 problems), model shipped, at lr 0.0007 for all, 5 seeds" in judgement.scope


def test_no_verdict_before_the_plan_is_complete() -> None:
    assert refused(rows()[:-1]) == "plan incomplete"
    assert refused(rows(), plan("a", "b", "c")) == "plan incomplete"
    assert primary(rows()[:-1], plan()).standings  # intervals there are


def test_no_verdict_on_runs_that_never_trained() -> None:
    """A reward of None for everything: no update, the same policy, five times the same number."""
    untrained = [trace(name, s, 0.3, updates=0) for name in "ab" for s in range(5)]
    assert refused(untrained) == "no update"


def test_no_verdict_where_no_row_learned() -> None:
    same = [trace(name, s, 0.302, before=0.3) for name in "ab" for s in range(5)]
    assert refused(same) == "nothing learned"


@pytest.mark.parametrize(("problems", "margin", "name"), [(199, 0.02, "too few problems"), (200, 0.02, None)])
def test_one_problem_weighs_at_most_a_quarter_of_the_margin(problems: int, margin: float, name: str | None) -> None:
    few = [trace(row, s, after, problems=problems) for row, after in (("a", 0.8), ("b", 0.6)) for s in range(5)]
    assert refused(few, plan(margin=margin)) == name


def test_no_verdict_on_a_row_that_was_always_silent() -> None:
    assert refused(rows(silent=1.0, after=0.3)) == "silent"


def test_no_verdict_on_runs_that_are_identical() -> None:
    """The part that differs never acted: every metric of every step is the same."""
    twins = [trace(name, s, gradient=0.1 + s) for name in "ab" for s in range(5)]
    assert refused(twins) == "identical runs"
    assert not identical(twins[:5], rows()[:5])
    almost = [*twins[:-1], trace("b", 4, gradient=0.2)]
    assert refused(almost) is None


def test_no_verdict_at_equal_steps_where_costs_are_not() -> None:
    """At equal steps what samples 2.6 times as much is favoured."""
    dear = rows(tokens=2600)
    assert refused(dear) == "unequal cost"
    assert refused(dear, plan(unlike_costs=True)) is None  # it was asked for
    reason = primary(dear, plan()).pairs[0].refusal
    assert reason is not None and "b sampled 2.6 times the tokens of a" in reason.reason


def test_no_verdict_at_a_budget_that_was_not_spent() -> None:
    at_budget = plan(endpoint="tokens", budget="tokens=20000")
    assert refused(rows(), at_budget) == "budget not spent"
    spent = [Trace(t.algorithm, t.seed, t.records, ended="budget") for t in rows()]
    assert refused(spent, at_budget) is None


def test_no_verdict_on_wall_time() -> None:
    assert refused(rows(), plan(budget="seconds=600")) == "wall time"


@pytest.mark.parametrize("every", [1, 2, 4, 5, 10, 20])
def test_thinning_evaluations_changes_no_verdict(every: int) -> None:
    """b samples twice as much; by interpolation it would be 3 to 30 points apart, by how often it was evaluated."""
    marks = tuple(range(0, 21, every))
    thinned = [trace(name, s, evaluations=marks, tokens=t) for name, t in (("a", 1000), ("b", 2000)) for s in range(5)]
    assert refused(thinned, plan(endpoint="tokens")) == "unequal cost"
    at_budget = plan(endpoint="tokens", budget="tokens=20000")
    judged = [Trace(t.algorithm, t.seed, t.records, ended="budget") for t in rows()]
    kept = [trace("a", s, evaluations=marks) for s in range(5)] + [
        trace("b", s, 0.6, evaluations=marks) for s in range(5)
    ]
    kept = [Trace(t.algorithm, t.seed, t.records, ended="budget") for t in kept]
    assert primary(kept, at_budget).pair("a", "b").found == primary(judged, at_budget).pair("a", "b").found


def test_a_third_row_changes_no_pair() -> None:
    alone = primary(rows(), plan()).pair("a", "b")
    short = [trace("c", s, 0.5, tokens=10) for s in range(5)]
    beside = primary([*rows(), *short], plan("a", "b", "c"))
    assert beside.pair("a", "b").found == alone.found and beside.pair("a", "b").verdict == alone.verdict
    refusal = beside.pair("a", "c").refusal
    assert refusal is not None and refusal.name == "unequal cost"


def test_a_failed_seed_counts_in_the_verdict() -> None:
    risky = [*rows()[:-1], trace("b", 4, 0.05, failed=True)]
    pair = primary(risky, plan()).pair("a", "b")
    assert pair.n == 5 and pair.difference.mean > primary(rows(), plan()).pair("a", "b").difference.mean


def test_controls_are_not_judged_but_awaited() -> None:
    control = [trace("a+frozen", s, 0.3, updates=0) for s in range(5)]
    of = plan(controls=("a+frozen",))
    assert refused(rows(), of) == "plan incomplete"
    judgement = primary([*rows(), *control], of)
    assert [one.algorithm for one in judgement.standings] == ["a", "b"] and len(judgement.pairs) == 1


def test_a_second_look_is_stricter() -> None:
    assert primary(rows(), plan()).level == pytest.approx(0.0375)
    assert primary(rows(), plan(), look=2).level == pytest.approx(0.009375)


def test_refuse_all_of_nothing() -> None:
    refusal = refuse_all([], plan())
    assert refusal is not None and refusal.reason == "the plan is not complete: 10 of its runs have not ended"


def test_a_row_whose_runs_all_failed_sampled_nothing_that_counts() -> None:
    """Two runs of 100 and 300 tokens sampled 200 on average; a failed one is left out, and alone it counts 0."""

    def run(sampled: int, failed: bool = False) -> Trace:
        return Trace("a", 0, [{"kind": "train", "step": 1, "tokens_sampled": sampled}], failed)

    assert tokens([run(100), run(300), run(7, failed=True)]) == 200
    assert tokens([run(7, failed=True)]) == 0
