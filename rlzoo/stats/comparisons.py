"""One comparison, judged in every way: by where the runs ended, by their area, and at an equal budget on every axis.

    final             accuracy of the last evaluation
    area              mean accuracy over training steps, up to where every run got
    updates, tokens_sampled, tokens_trained, engine_s
                      accuracy at the largest budget on that axis that every run reached

At equal steps an algorithm that samples more is favoured, at equal tokens one that needs fewer of them for a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from rlzoo.config.comparison import MARGIN
from rlzoo.stats.amounts import clock_time, short_count
from rlzoo.stats.scores import AXES, Axis, Trace, area, at, collapsed, common_budget, final, tabulate
from rlzoo.stats.verdicts import Judgement, judge


def judgements(traces: Sequence[Trace], margin: float = MARGIN) -> dict[str, Judgement]:
    """Judge runs, also while they train; see above for the keys. What no run has a score for yet is left out."""
    lost: dict[str, set[int]] = {}
    for trace in traces:
        if collapsed(trace):
            lost.setdefault(trace.algorithm, set()).add(trace.seed)
    made = {"final": judge(tabulate(traces, final), margin=margin, collapsed=lost)}
    for key, (measure, score) in _at_equal_budgets(traces).items():
        made[key] = judge(tabulate(traces, score), margin=margin, measure=measure)
    return {key: judgement for key, judgement in made.items() if judgement.standings}


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
