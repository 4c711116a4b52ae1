"""The score of each run, from its held-out evaluations: at its end, at an equal budget, and over the whole curve.

    area(budget) = integral of accuracy over the axis, from the first evaluation to `budget`, / its length

Tables, contrasts, verdicts, report and curves all use `final_scores`. A failed run (its loss or gradient was not
finite) counts in all of them with the accuracy of its last evaluation: it keeps the policy from before the bad update
and has no further cost. Leaving it out would flatter the algorithms that lose seeds. It always counts as a collapse.

Scores at equal budgets are interpolated between evaluations. They fill a table and carry no verdict: a concave curve
and few evaluations move them by more than the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlzoo.stats.crossed import UNKNOWN_PROBLEMS, Estimate
from rlzoo.stats.estimates import Score, contrast_of, sampling_variance
from rlzoo.store.outcomes import unpack

T = TypeVar("T")
Axis = Literal["step", "updates", "tokens_sampled", "tokens_trained", "engine_s"]
"""What a run's progress, or its cost, is counted in: a key of every record, never falling."""

AXES: dict[Axis, str] = {
    "step": "training steps",
    "updates": "optimizer updates",
    "tokens_sampled": "sampled tokens",
    "tokens_trained": "trained tokens",
    "engine_s": "engine seconds",
}
"""Each axis' label. Sampled tokens include what selection discarded; engine seconds are not reproducible."""

FALL = 0.1
"""A run that ends this far (of accuracy) below its own best evaluation has collapsed."""


@dataclass(frozen=True)
class Trace:
    """The records of one run, as in metrics.jsonl, in order of their step.

    Evaluations on the validation split have the kind `eval`, those on the test split at both ends of a run `test`; both
    may carry `outcomes`, the packed accuracy on each problem. A run without a `test` is scored by its `eval` records.

    Attributes:
        failed: the run stopped because its loss or gradient was not finite.
        ended: what ended it: steps, budget or failure; None if unknown.
    """

    algorithm: str
    seed: int
    records: Sequence[Mapping[str, Any]]
    failed: bool = False
    ended: str | None = None

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """Return the records of the curve: on the validation split, all of the same problems."""
        return [record for record in self.records if record["kind"] == "eval"]

    @property
    def tests(self) -> list[Mapping[str, Any]]:
        """Return the records that scores are of: those on the test split, or of the curve where there are none."""
        return [record for record in self.records if record["kind"] == "test"] or self.evaluations

    @property
    def training(self) -> list[Mapping[str, Any]]:
        """Return the records of training steps."""
        return [record for record in self.records if record["kind"] == "train"]


def final(trace: Trace) -> float | None:
    """Return the accuracy of a run's last evaluation; None if there is none yet."""
    return trace.tests[-1]["accuracy"] if trace.tests else None


def score_of(record: Mapping[str, Any]) -> Score:
    """Return an evaluation's accuracy on each problem, [problems], or their mean where only that was stored."""
    outcomes = unpack(record.get("outcomes"))
    return record["accuracy"] if outcomes is None else outcomes


def final_scores(traces: Iterable[Trace]) -> dict[str, dict[int, Score]]:
    """Return algorithm -> seed -> score of the last evaluation, failed runs included; see above."""
    return tabulate(traces, lambda trace: score_of(trace.tests[-1]) if trace.tests else None)


def first_scores(traces: Iterable[Trace]) -> dict[str, dict[int, Score]]:
    """Return algorithm -> seed -> score of the first evaluation, before training."""
    return tabulate(traces, lambda trace: score_of(trace.tests[0]) if trace.tests else None)


def gains(traces: Iterable[Trace]) -> dict[str, Estimate]:
    """Return how much each algorithm's accuracy rose: per seed and problem, last evaluation less the first."""
    traces = list(traces)
    before, after = first_scores(traces), final_scores(traces)
    return {
        name: contrast_of([list(seeds.values()), [before[name][seed] for seed in seeds]], (1.0, -1.0))
        for name, seeds in after.items()
    }


def at(trace: Trace, axis: Axis, budget: float) -> float | None:
    """Return the accuracy that a run had reached at `budget` on an axis.

    None before its first evaluation and beyond its last one, unless the run failed (see above).
    """
    x, y = _curve(trace, axis)
    if not len(x) or budget < x[0] or (budget > x[-1] and not trace.failed):
        return None
    return float(np.interp(budget, x, y))


def area(trace: Trace, axis: Axis, budget: float) -> float | None:
    """Return the mean accuracy of a run from its first evaluation to `budget`, by the trapezoidal rule.

    None where `at` is None. An area of no length is the accuracy itself.
    """
    last = at(trace, axis, budget)
    if last is None:
        return None
    x, y = _curve(trace, axis)
    inside = x < budget
    x, y = np.append(x[inside], budget), np.append(y[inside], last)
    return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else last


def collapsed(trace: Trace, fall: float = FALL) -> bool:
    """Whether a run failed, or ended below its first evaluation, or more than `fall` below its best one.

    A fall of less than two standard errors of the two shares is sampling, not a collapse.
    """
    if trace.failed:
        return True
    evaluations = trace.evaluations
    if not evaluations:
        return False
    first, last = evaluations[0], evaluations[-1]
    best = max(evaluations, key=lambda record: record["accuracy"])

    def fell(start: Mapping[str, Any], least: float) -> bool:
        return start["accuracy"] - last["accuracy"] > max(least, 2 * _noise(start, last))

    return fell(first, 0.0) or fell(best, fall)


def _noise(*records: Mapping[str, Any]) -> float:
    """Return the standard error of a difference of two shares of held-out problems."""
    return math.sqrt(sum(sampling_variance(r["accuracy"], problems_of(r)) for r in records))


def problems_of(record: Mapping[str, Any]) -> int:
    """Return how many held-out problems an evaluation was of."""
    return (record.get("outcomes") or {}).get("problems", UNKNOWN_PROBLEMS)


def common_budget(traces: Iterable[Trace], axis: Axis) -> float | None:
    """Return how far every run got on an axis: the smallest last value. Failed runs have none; None if all failed."""
    ends = [trace.evaluations[-1][axis] for trace in traces if trace.evaluations and not trace.failed]
    return min(ends, default=None)


def tabulate(traces: Iterable[Trace], score: Callable[[Trace], T | None]) -> dict[str, dict[int, T]]:
    """Return algorithm -> seed -> score; runs without one are left out, algorithms in the order they come in."""
    table: dict[str, dict[int, T]] = {}
    for trace in traces:
        value = score(trace)
        if value is not None:
            table.setdefault(trace.algorithm, {})[trace.seed] = value
    return table


def _curve(trace: Trace, axis: Axis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions, increasing, and accuracies. Of evaluations at one position the last counts: it cost no more."""
    points = {record[axis]: record["accuracy"] for record in trace.evaluations}
    return np.fromiter(points.keys(), np.float64), np.fromiter(points.values(), np.float64)
