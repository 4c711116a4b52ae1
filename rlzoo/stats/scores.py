"""One number per run, from its held-out evaluations: the final accuracy, the accuracy at an equal budget, the area.

    area(budget) = integral of accuracy over the axis, from the first evaluation to `budget`, / its length

Between two evaluations accuracy is a straight line; beyond the last one a run has no score. An area is a mean accuracy:
of two runs that end alike, the one that got there sooner has the larger one.

A failed run (its loss or gradient was not finite) counts, with the accuracy of its last evaluation: it keeps its policy
of before the bad update and costs nothing from there on, so on every axis it stays at that accuracy. To leave it out
would flatter the algorithms that lose seeds; and it is always a collapse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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

Scores = Mapping[str, Mapping[int, float]]
"""algorithm -> seed -> score."""

FALL = 0.1
"""A run that ends this far (of accuracy) below its own best evaluation has collapsed."""


@dataclass(frozen=True)
class Trace:
    """The records of one run, as in metrics.jsonl, in order of their step; only those of evaluations are scored.

    Attributes:
        failed: the run stopped because its loss or gradient was not finite.
    """

    algorithm: str
    seed: int
    records: Sequence[Mapping[str, Any]]
    failed: bool = False

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """Return the records of evaluations."""
        return [record for record in self.records if record["kind"] == "eval"]


def final(trace: Trace) -> float | None:
    """Return the accuracy of a run's last evaluation; None if there is none yet."""
    evaluations = trace.evaluations
    return evaluations[-1]["accuracy"] if evaluations else None


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
    """Whether a run failed, ended below its own first evaluation, or ended more than `fall` below its best one."""
    accuracies = [record["accuracy"] for record in trace.evaluations]
    if not accuracies:
        return trace.failed
    return trace.failed or accuracies[-1] < accuracies[0] or accuracies[-1] < max(accuracies) - fall


def common_budget(traces: Iterable[Trace], axis: Axis) -> float | None:
    """Return how far every run got on an axis: the smallest last value. Failed runs have none; None if all failed."""
    ends = [trace.evaluations[-1][axis] for trace in traces if trace.evaluations and not trace.failed]
    return min(ends, default=None)


def tabulate(traces: Iterable[Trace], score: Callable[[Trace], float | None]) -> dict[str, dict[int, float]]:
    """Return algorithm -> seed -> score; runs without one are left out, algorithms in the order they come in."""
    table: dict[str, dict[int, float]] = {}
    for trace in traces:
        value = score(trace)
        if value is not None:
            table.setdefault(trace.algorithm, {})[trace.seed] = value
    return table


def _curve(trace: Trace, axis: Axis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions, increasing, and accuracies. Of evaluations at one position the last counts: it cost no more."""
    points = {record[axis]: record["accuracy"] for record in trace.evaluations}
    return np.fromiter(points.keys(), np.float64), np.fromiter(points.values(), np.float64)
