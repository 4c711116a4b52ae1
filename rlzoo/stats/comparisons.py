"""A comparison's primary endpoint, judged by its plan, and accuracies at equal cost as a table without verdicts.

    primary          held-out accuracy of the last evaluation: at the token budget, or after equally many steps
    area             mean accuracy over training steps, up to where every run got
    updates, tokens_sampled, tokens_trained, engine_s
                     accuracy at the largest budget on that axis that every run reached, interpolated

Only the primary endpoint has verdicts. Six endpoints at 5% each are six chances of a false alarm, and they contradict
each other: equal steps favour an algorithm that samples many tokens per step, equal tokens one that samples few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rlzoo.config.plan import Plan
from rlzoo.stats.amounts import clock_time, short_count
from rlzoo.stats.estimates import mean_of
from rlzoo.stats.intervals import Interval
from rlzoo.stats.judge import judge
from rlzoo.stats.preconditions import by_row, refuse_all, refuse_pair
from rlzoo.stats.scores import (
    AXES,
    Axis,
    Trace,
    area,
    at,
    collapsed,
    common_budget,
    final_scores,
    problems_of,
    tabulate,
)
from rlzoo.stats.spending import spent
from rlzoo.stats.verdicts import Judgement, Refusal


@dataclass(frozen=True)
class Cost:
    """Accuracies at one budget: what it is, in words, and each algorithm's mean."""

    measure: str
    means: dict[str, Interval]


def primary(traces: Sequence[Trace], plan: Plan | None, look: int = 1) -> Judgement:
    """Judge the runs that have ended by the plan's endpoint. Controls are shown and have no verdict.

    Args:
        plan: None: the folder has none; the result has intervals and no verdicts.
        look: number of times that the plan's data have been judged, this time included; see `rlzoo.stats.spending`.
    """
    if plan is None:
        none = Refusal("no plan", "there is no plan.json, so nobody fixed before the runs what was to be compared")
        return judge(final_scores(traces), refusal=none, collapsed=lost(traces))
    judged = [trace for trace in traces if trace.algorithm in plan.rows]
    rows = by_row(judged)
    scores = final_scores(judged)

    def refuse(a: str, b: str) -> Refusal | None:
        return refuse_pair(rows[a], rows[b], plan)

    problems = min((problems_of(trace.tests[-1]) for trace in judged if trace.tests), default=0)
    seeds = min((len(of) for of in scores.values()), default=0)
    return judge(
        scores,
        margin=plan.margin,
        level=spent(plan.level, look),
        questions=plan.questions(),
        refuse=refuse,
        refusal=refuse_all(traces, plan),
        collapsed=lost(judged),
        problems=max(problems, 1),
        measure=plan.measure,
        scope=plan.scope(problems, seeds),
    )


def lost(traces: Sequence[Trace]) -> dict[str, set[int]]:
    """Return algorithm -> its seeds that collapsed."""
    found: dict[str, set[int]] = {}
    for trace in traces:
        if collapsed(trace):
            found.setdefault(trace.algorithm, set()).add(trace.seed)
    return found


def costs(traces: Sequence[Trace]) -> dict[str, Cost]:
    """Return the accuracies at equal budgets; see above for the keys. An axis is absent while some run is at its 0."""
    result: dict[str, Cost] = {}
    for key, (measure, score) in _at_equal_budgets(traces).items():
        table = tabulate(traces, score)
        result[key] = Cost(measure, {name: mean_of(list(seeds.values())).share() for name, seeds in table.items()})
    return result


def _at_equal_budgets(traces: Sequence[Trace]) -> dict[str, tuple[str, Callable[[Trace], float | None]]]:
    scores: dict[str, tuple[str, Callable[[Trace], float | None]]] = {}
    for axis in AXES:
        budget = common_budget(traces, axis)
        if not budget:  # some run has not got beyond its first evaluation
            continue
        if axis == "step":
            scores["area"] = f"accuracy over {budget} steps", partial(area, axis=axis, budget=budget)
        else:
            scores[axis] = f"accuracy at {_amount(axis, budget)}", partial(at, axis=axis, budget=budget)
    return scores


def _amount(axis: Axis, budget: float) -> str:
    return f"{clock_time(budget)} of engine time" if axis == "engine_s" else f"{short_count(budget)} {AXES[axis]}"
