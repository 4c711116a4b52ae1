"""Several tasks judged together: the mean over tasks of the held-out accuracy, of pairs of rows as for one task.

    y(row, seed) = mean over tasks t of the mean accuracy on the problems of t

Every task counts alike, whatever its number of problems. Tasks are fixed and not a sample: nobody draws them at random,
and three of them say little of a fourth. Seeds and problems are samples. A seed's mean over tasks is one value, so that
what a seed's runs share over tasks (first adapter, noise) is in the error. Problems vary within their own task.

Single tasks have verdicts of their own, at the level of the plan divided by the number of tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rlzoo.config.plan import Plan
from rlzoo.stats.aggregates import Profile, improvement, interquartile_mean, profile
from rlzoo.stats.comparisons import lost
from rlzoo.stats.estimates import Score, mean_of
from rlzoo.stats.intervals import Interval
from rlzoo.stats.judge import judge
from rlzoo.stats.preconditions import by_row, incomplete, refuse_all, refuse_pair
from rlzoo.stats.scores import Trace, final_scores
from rlzoo.stats.spending import spent
from rlzoo.stats.verdicts import Judgement, Refusal

ByTask = Mapping[str, Sequence[Trace]]
"""task -> the runs that have ended on it."""

ON_EVERY = ("no update", "nothing learned", "silent", "identical runs")
"""Preconditions that fail only if they fail on every task: elsewhere a difference can show."""
THRESHOLDS = tuple(i / 50 for i in range(50))
"""Accuracies at which performance profiles are drawn."""


@dataclass(frozen=True)
class Aggregate:
    """One row over all tasks, on the seeds that it has on each of them.

    Attributes:
        mean: of the tasks' accuracies, with its interval over seeds and problems.
        iqm: interquartile mean over runs and tasks with its stratified bootstrap interval.
        tasks: task -> mean accuracy with its interval over seeds and problems.
        profile: share of runs above each accuracy.
    """

    row: str
    seeds: int
    mean: Interval
    iqm: Interval
    tasks: Mapping[str, Interval]
    profile: Profile

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        tasks = {name: one.as_dict() for name, one in self.tasks.items()}
        whole = {key: getattr(self, key).as_dict() for key in ("mean", "iqm", "profile")}
        return {"row": self.row, "seeds": self.seeds, **whole, "tasks": tasks}


def primary_over_tasks(tasks: ByTask, plan: Plan | None, look: int = 1) -> Judgement:
    """Judge the mean over tasks by a plan over tasks; without a plan there are intervals and no verdicts.

    Args:
        tasks: every task of the plan, also one without a run that has ended.
        look: see `rlzoo.stats.comparisons.primary`.
    """
    if plan is None:
        scores, strata = scores_over_tasks(tasks)
        none = Refusal("no plan", "there is no plan.json, so nobody fixed before the runs what was to be compared")
        return judge(scores, refusal=none, strata=strata)
    judged = {name: [trace for trace in traces if trace.algorithm in plan.rows] for name, traces in tasks.items()}
    scores, strata = scores_over_tasks(judged)
    rows = {name: by_row(traces) for name, traces in judged.items()}

    def refuse(a: str, b: str) -> Refusal | None:
        return _joined({name: refuse_pair(of[a], of[b], plan) for name, of in rows.items()})

    seeds = min((len(of) for of in scores.values()), default=0)
    problems = sum(strata or ())
    return judge(
        scores,
        margin=plan.margin,
        level=spent(plan.level, look),
        questions=plan.questions(),
        refuse=refuse,
        refusal=incomplete(plan, _ended(tasks)) or _joined({name: refuse_all(t, plan) for name, t in tasks.items()}),
        collapsed=_lost(judged, scores),
        strata=strata,
        measure=plan.measure,
        scope=plan.scope(problems, seeds),
    )


def scores_over_tasks(tasks: ByTask) -> tuple[dict[str, dict[int, Score]], list[int] | None]:
    """Return algorithm -> seed -> score over tasks, of the seeds that it has on every task, and the problems of each.

    A score is the outcome on each problem of all tasks, [problems]. Those of task t are multiplied by M / (T m_t), for
    T tasks with m_t problems, M in all, so that the mean of the score is the mean over tasks. Where single outcomes are
    unknown, or runs of a task have different problems, a score is that mean, and the number of problems None.
    """
    of_each = {name: final_scores(traces) for name, traces in tasks.items()}
    names = _in_all(of_each)
    shared = {row: sorted(set.intersection(*(set(of[row]) for of in of_each.values()))) for row in names}
    sizes = [{np.shape(of[row][seed]) for row in names for seed in shared[row]} for of in of_each.values()]
    if any(len(found) != 1 or () in found for found in sizes):
        means = {
            row: {seed: _mean([of[row][seed] for of in of_each.values()]) for seed in shared[row]} for row in names
        }
        return {row: of for row, of in means.items() if of}, None
    strata = [int(found.pop()[0]) for found in sizes]
    weights = [sum(strata) / (len(strata) * size) for size in strata]
    scores: dict[str, dict[int, Score]] = {}
    for row in names:
        for seed in shared[row]:
            parts = [w * np.asarray(of[row][seed]) for w, of in zip(weights, of_each.values(), strict=True)]
            scores.setdefault(row, {})[seed] = np.concatenate(parts)
    return scores, strata


def aggregates(tasks: ByTask) -> list[Aggregate]:
    """Return every row over all tasks, the highest mean first; rows that some task has no run of are left out."""
    scores, strata = scores_over_tasks(tasks)
    of_each = {name: final_scores(traces) for name, traces in tasks.items()}
    made = []
    for row, seeds in scores.items():
        made.append(
            Aggregate(
                row,
                len(seeds),
                mean_of(list(seeds.values()), strata=strata).share(),
                interquartile_mean(_matrix(of_each, row, seeds)),
                {name: mean_of([of[row][seed] for seed in seeds]).share() for name, of in of_each.items()},
                profile(_matrix(of_each, row, seeds), THRESHOLDS),
            )
        )
    return sorted(made, key=lambda one: -one.mean.mean)


def improvements(tasks: ByTask) -> dict[tuple[str, str], Interval]:
    """Return (a, b) -> P(a > b) over tasks for every two rows, `a` the one with the higher mean over tasks."""
    scores, _ = scores_over_tasks(tasks)
    of_each = {name: final_scores(traces) for name, traces in tasks.items()}
    rows = sorted(scores, key=lambda row: -_mean(list(scores[row].values())))
    tables = {row: _matrix(of_each, row, scores[row]) for row in rows}
    return {(a, b): improvement(tables[a], tables[b]) for a, b in combinations(rows, 2)}


def _matrix(of_each: Mapping[str, Mapping[str, Mapping[int, Score]]], row: str, seeds: Collection[int]) -> list[Any]:
    """The accuracies [seeds, tasks] of a row."""
    return [[float(np.mean(of[row][seed])) for of in of_each.values()] for seed in seeds]


def _in_all(of_each: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The rows that every task has, in the order of the first."""
    first, *others = of_each.values() or [{}]
    return [row for row in first if all(row in of for of in others)]


def _mean(scores: Sequence[Score]) -> float:
    return float(np.mean([np.mean(score) for score in scores]))


def _ended(tasks: ByTask) -> Iterator[list[tuple[str, int]]]:
    yield from ([(trace.algorithm, trace.seed) for trace in traces] for traces in tasks.values())


def _lost(tasks: ByTask, scores: Mapping[str, Collection[int]]) -> dict[str, set[int]]:
    """The seeds of each row that collapsed on any task."""
    of_each = [lost(traces) for traces in tasks.values()]
    return {row: set[int]().union(*(of.get(row, set()) for of in of_each)) for row in scores}


def _joined(found: Mapping[str, Refusal | None]) -> Refusal | None:
    """Return why there is no verdict over tasks: what refuses it on any one, or one of `ON_EVERY` on all of them."""
    refused = {name: one for name, one in found.items() if one is not None}
    for name, one in refused.items():
        if one.name not in ON_EVERY:
            return Refusal(one.name, f"on {name}, {one.reason}")
    if refused and len(refused) == len(found):
        first = next(iter(refused.values()))
        return Refusal(first.name, f"on every task, {first.reason}")
    return None
