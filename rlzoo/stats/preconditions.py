"""Preconditions of a verdict. Where one does not hold there is none, and its name and reason stand in its place.

    of a comparison      plan incomplete, wall time, no update, nothing learned, too few problems
    of a pair            silent, identical runs, unequal cost, budget not spent

Without them runs that never trained are "equivalent", and 16 problems decide a margin of 2 points. That some row's gain
leaves out 0 is what trials of equivalence call assay sensitivity (ICH E10): an experiment that cannot show any effect
cannot show that two are the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from rlzoo.config.budget import Budget
from rlzoo.config.plan import Plan
from rlzoo.stats.amounts import short_count
from rlzoo.stats.scores import Trace, gains, problems_of
from rlzoo.stats.verdicts import Refusal

SHARE_OF_MARGIN = 0.25
"""One problem may weigh at most this share of the margin."""
LIKE_COSTS = 1.1
"""Up to this ratio of sampled tokens, equally many steps are of equal cost."""
SAME_RUN = ("reward", "entropy", "length", "gradient_norm")
"""Metrics of a training step that two runs share to the last digit only if they have the same adapter."""


def incomplete(plan: Plan, ended: Iterable[Collection[tuple[str, int]]]) -> Refusal | None:
    """Return a refusal where planned runs have not ended, or None.

    Args:
        ended: of each task, the (row, seed) of the runs that have ended.
    """
    missing = sum(plan.missing(of) for of in ended)
    if not missing:
        return None
    runs = f"{missing} of its runs {'has' if missing == 1 else 'have'} not ended"
    return Refusal("plan incomplete", f"the plan is not complete: {runs}")


def refuse_all(traces: Sequence[Trace], plan: Plan) -> Refusal | None:
    """Return why no pair of a comparison can have a verdict, or None.

    Args:
        traces: of the runs that have ended; those on one task, where the plan has several.
    """
    waiting = incomplete(plan, [[(trace.algorithm, trace.seed) for trace in traces]])
    if waiting is not None:
        return waiting
    budget = Budget.of(plan.budget)
    if budget is not None and budget.unit == "seconds":
        return Refusal("wall time", f"a budget of {plan.budget} depends on the machine and does not repeat")
    if not any(updates(trace) for trace in traces):
        return Refusal("no update", "no run made an update: every group was silent or had no reward")
    smallest = min((problems_of(trace.tests[-1]) for trace in traces if trace.tests), default=0)
    tasks = max(len(plan.tasks), 1)  # of several, a problem weighs in the mean over tasks
    needed = math.ceil(1 / (SHARE_OF_MARGIN * plan.margin * tasks) - 1e-9)
    if smallest < needed:
        return Refusal(
            "too few problems",
            f"{smallest} held-out problems are too few for a margin of {100 * plan.margin:g} points: one weighs "
            f"{100 / (max(smallest, 1) * tasks):.1f} points, and at least {needed} are needed",
        )
    judged = [trace for trace in traces if trace.algorithm in plan.rows]
    if len(plan.seeds) > 1 and not any(gain.interval().sign for gain in gains(judged).values()):
        return Refusal("nothing learned", "no row's gain excludes 0, so this comparison cannot show any difference")
    return None


def refuse_pair(a: Sequence[Trace], b: Sequence[Trace], plan: Plan) -> Refusal | None:
    """Return why the runs of two rows cannot have a verdict, or None."""
    for row in (a, b):
        if all(silent(trace) for trace in row):
            name = row[0].algorithm
            return Refusal("silent", f"every group of {name} was silent at every step, so it never learned")
    if identical(a, b):
        names = f"{a[0].algorithm} and {b[0].algorithm}"
        return Refusal("identical runs", f"the runs of {names} are identical: what differs between them never acted")
    if plan.endpoint == "tokens":
        return _at_the_budget([*a, *b], plan)
    sampled = [tokens(row) for row in (a, b)]
    if not plan.unlike_costs and min(sampled) and max(sampled) > LIKE_COSTS * min(sampled):
        dear, cheap = (a, b) if sampled[0] > sampled[1] else (b, a)
        return Refusal(
            "unequal cost",
            f"{dear[0].algorithm} sampled {max(sampled) / min(sampled):.2g} times the tokens of {cheap[0].algorithm} "
            "in as many steps. Give both a budget (--budget tokens=200k), or set endpoint = 'steps' to compare them so",
        )
    return None


def updates(trace: Trace) -> int:
    """Return how many updates a run made."""
    return int(trace.records[-1].get("updates") or 0) if trace.records else 0


def tokens(row: Sequence[Trace]) -> float:
    """Return how many tokens the runs of a row sampled on average; failed runs, which stopped early, are left out."""
    ends = [trace.records[-1].get("tokens_sampled", 0) for trace in row if trace.records and not trace.failed]
    return sum(ends) / len(ends) if ends else 0.0


def silent(trace: Trace) -> bool:
    """Whether every group was silent at every step, so that no update had a gradient."""
    shares = [record.get("silent_groups") for record in trace.training]
    return bool(shares) and all(share is not None and share >= 1 for share in shares)


def identical(a: Sequence[Trace], b: Sequence[Trace]) -> bool:
    """Whether two rows trained to the same adapters on every seed that both have."""
    first, second = ({trace.seed: _fingerprint(trace) for trace in row} for row in (a, b))
    shared = first.keys() & second.keys()
    return bool(shared) and all(first[seed] == second[seed] and first[seed] for seed in shared)


def _fingerprint(trace: Trace) -> list[tuple[float | None, ...]]:
    """The metrics of every step; none for a run whose gradient was always 0, which is silent and not identical."""
    steps = [tuple(record.get(key) for key in SAME_RUN) for record in trace.training]
    return steps if any(value for step in steps for value in step[3:]) else []


def _at_the_budget(traces: Sequence[Trace], plan: Plan) -> Refusal | None:
    """Refuse runs whose last evaluation is not at equal sampled tokens: within one training step of the budget."""
    budget = Budget.of(plan.budget)
    if budget is not None and budget.unit == "tokens":
        short = [trace for trace in traces if not trace.failed and trace.ended == "steps"]
        if not short:
            return None
        return Refusal(
            "budget not spent",
            f"{len(short)} of {len(traces)} runs made all {plan.steps} steps before they had sampled "
            f"{short_count(budget.limit)} tokens: raise train.steps",
        )
    going = [trace for trace in traces if not trace.failed]
    ends = [float(trace.records[-1]["tokens_sampled"]) for trace in going]
    step = max((end / max(trace.records[-1]["step"], 1) for end, trace in zip(ends, going, strict=True)), default=0.0)
    if not ends or max(ends) - min(ends) <= step:
        return None
    return Refusal(
        "unequal cost",
        f"the runs end at {short_count(min(ends))} to {short_count(max(ends))} sampled tokens. For equal ones give a "
        "budget: --budget tokens=200k",
    )


def by_row(traces: Sequence[Trace]) -> Mapping[str, list[Trace]]:
    """Return algorithm -> its runs."""
    rows: dict[str, list[Trace]] = {}
    for trace in traces:
        rows.setdefault(trace.algorithm, []).append(trace)
    return rows
