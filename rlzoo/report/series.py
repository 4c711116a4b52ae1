"""Runs' records as curves, and the curves of several seeds as one mean with its interval.

    mean(x) ± t(n - 1) s(x) / sqrt(n)        over the n seeds that have a value at x

Training metrics are noisy from step to step, so each run is averaged over a few neighbouring steps first. Held-out
accuracy is taken as measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from rlzoo.stats.intervals import CONFIDENCE

Array = NDArray[np.float64]
Curve = tuple[Array, Array]
"""Positions, increasing, and the values there, finite."""

STEPS_PER_WINDOW = 25
"""The smoothing window is the longest run's number of steps divided by this."""
SEEDS_FOR_INTERVAL = 3
"""The interval of two seeds is twelve times as wide as their distance from the mean, and says nothing."""
POINTS = 100
"""Of a mean at positions of its own."""


@dataclass(frozen=True)
class Curves:
    """The metrics of one run: records as in metrics.jsonl, in order of their step.

    Attributes:
        failed: it stopped early. Its accuracy stays that of its last evaluation, as in `rlzoo.stats.scores`.
    """

    algorithm: str
    seed: int
    records: Sequence[dict[str, Any]]
    failed: bool = False

    @cached_property
    def training(self) -> list[dict[str, Any]]:
        """The records of training steps."""
        return [record for record in self.records if record.get("kind") == "train"]

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations on the validation split."""
        return [record for record in self.records if record.get("kind") == "eval"]

    def metric(self, key: str) -> Array:
        """Return a training metric at every step, nan where a step has none."""
        return np.array([np.nan if record.get(key) is None else record[key] for record in self.training], np.float64)

    def trained(self, key: str, window: int, axis: str = "step") -> Curve:
        """Return a training metric, averaged over `window` steps, where it has a value."""
        y, x = self.metric(key), self.metric(axis)
        there = np.isfinite(y) & np.isfinite(x)
        return (x[there], smooth(y, window)[there]) if there.any() else (np.empty(0), np.empty(0))

    def evaluated(self, axis: str) -> Curve:
        """Return held-out accuracy; of several evaluations at one position the last."""
        points = {record[axis]: record["accuracy"] for record in self.evaluations if record.get(axis) is not None}
        return np.array(list(points), np.float64), np.array(list(points.values()), np.float64)


def smoothing_window(runs: Sequence[Curves]) -> int:
    """Return over how many neighbouring steps training metrics are averaged: odd, 1 for short runs."""
    return 2 * (max(len(run.training) for run in runs) // (2 * STEPS_PER_WINDOW)) + 1


def smooth(y: Array, window: int) -> Array:
    """Return the mean of each value's `window` neighbours, itself in the middle; shorter at the ends.

    Args:
        y: [n], with nan for steps without a number, which count for nothing.
        window: odd.
    """
    known = np.isfinite(y)
    ones = np.ones(window)
    total = np.convolve(np.where(known, y, 0.0), ones, mode="full")[window // 2 :][: len(y)]
    count = np.convolve(known, ones, mode="full")[window // 2 :][: len(y)]
    return np.where(known, total / np.maximum(count, 1), np.nan)


def band(curves: Sequence[Curve], grid: Array) -> tuple[Array, Array, Array]:
    """Return mean, low and high of several curves at the points of a grid, at each as `stats.interval`.

    nan where there is no curve; low and high also where there is only one.

    Args:
        curves: of each run; between its points a curve is a straight line.
        grid: [m].
    """
    at = np.stack([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves])
    known = np.isfinite(at)
    n = known.sum(axis=0)
    mean = np.divide(np.where(known, at, 0).sum(axis=0), n, out=np.full(len(grid), np.nan), where=n > 0)
    square = np.where(known, at - mean, 0) ** 2
    several = np.maximum(n - 1, 1)
    half = student.ppf((1 + CONFIDENCE) / 2, several) * np.sqrt(square.sum(axis=0) / several / np.maximum(n, 1))
    half = np.where(n > 1, half, np.nan)
    return mean, mean - half, mean + half


def held_out(runs: Sequence[Curves], axis: str) -> tuple[list[Curve], float]:
    """Return each run's held-out accuracy, and how far all runs got: the end of their mean.

    A failed run keeps its last accuracy up to the furthest end: from there on it costs nothing.
    """
    found = [(run, *run.evaluated(axis)) for run in runs if run.evaluations]
    ends = [x[-1] for _, x, _ in found if x.size]
    going = [x[-1] for run, x, _ in found if x.size and not run.failed]
    last = max(ends, default=0.0)
    curves = []
    for run, x, y in found:
        if run.failed and x.size and x[-1] < last:
            x, y = np.append(x, last), np.append(y, y[-1])
        if x.size:
            curves.append((x, y))
    return curves, min(going, default=last)


def at_reward(run: Curves, key: str, window: int) -> Curve:
    """Return a metric where the smoothed reward was higher than ever before: from left to right, never back."""
    if not run.training:
        return np.empty(0), np.empty(0)
    reward, metric = smooth(run.metric("reward"), window), smooth(run.metric(key), window)
    known = np.isfinite(reward) & np.isfinite(metric)
    reward, metric = reward[known], metric[known]
    first = np.diff(np.maximum.accumulate(reward), prepend=-np.inf) > 0
    return reward[first], metric[first]


def half_way(curves: Sequence[Curve]) -> float:
    """Return the position that more than half of the curves reached."""
    ends = sorted(x[-1] for x, _ in curves)
    return ends[(len(ends) - 1) // 2]


def grid(curves: Sequence[Curve], end: float, exact: bool, log: bool = False) -> Array:
    """Return the positions at which curves are averaged.

    Args:
        end: the last one.
        exact: at the positions at which they were measured, unless those are many.
        log: with equal ratios between them, for a logarithmic axis.
    """
    every = np.unique(np.concatenate([x for x, _ in curves] + [np.array([end])]))
    every = every[every <= end]
    if (exact and len(every) <= POINTS) or len(every) <= 2:
        return every
    first = every[every > 0][0]
    if not log or end <= first:
        return np.linspace(every[0], end, POINTS)
    even = np.geomspace(first, end, POINTS)
    even[-1] = end  # rounding must not lead beyond the last measurement
    return np.concatenate([every[:1], even]) if every[0] < first else even
