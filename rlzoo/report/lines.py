"""What a chart shows: lines with intervals, the frame that they stand in, and what they tell in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rlzoo.report.palette import Look
from rlzoo.report.series import POINTS, SEEDS_FOR_INTERVAL, Array, Curve, band
from rlzoo.stats.amounts import clock_time, short_count

Form = Literal["count", "percent", "number", "seconds"]

LISTED = 6
"""Lines that the words of a chart name."""


@dataclass(frozen=True)
class Line:
    """One series: mean and interval at increasing positions; nan where there is none.

    Attributes:
        marked: at every point, unless there are many.
        quiet: drawn in grey, behind the others and without an interval.
        thin: of one seed.
    """

    label: str
    look: Look
    x: Array
    mean: Array
    low: Array
    high: Array
    marked: bool = False
    quiet: bool = False
    thin: bool = False

    def within(self, begin: float, end: float) -> Line:
        """Return the part between two positions, these included."""
        inside = (begin <= self.x) & (self.x <= end)
        x, mean, low, high = (part[inside] for part in (self.x, self.mean, self.low, self.high))
        return replace(self, x=x, mean=mean, low=low, high=high)


@dataclass(frozen=True)
class Frame:
    """What the two axes show.

    Attributes:
        log: the horizontal axis is logarithmic; 0 stands at its left edge.
        ticks: positions that the horizontal axis names; none: round ones.
    """

    x_label: str
    y_label: str
    x_form: Form = "count"
    y_form: Form = "number"
    log: bool = False
    ticks: tuple[float, ...] = ()


def known(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that have a point."""
    return [line for line in lines if np.isfinite(line.mean).any()]


def averaged(
    label: str,
    look: Look,
    curves: Sequence[Curve],
    at: Array,
    *,
    marked: bool = False,
    shaded: int = SEEDS_FOR_INTERVAL,
    seeds: bool = False,
    quiet: bool = False,
) -> list[Line]:
    """Return the mean of curves at some positions, after thin lines of the curves themselves.

    Args:
        shaded: that many curves have an interval.
        seeds: draw each curve, too. Two always are, in the place of an interval.
    """
    mean, low, high = band(curves, at)
    if len(curves) < shaded:
        low = high = np.full_like(mean, np.nan)
    lines = []
    if not quiet and len(curves) > 1 and (seeds or len(curves) < SEEDS_FOR_INTERVAL):
        lines = [_thin(label, look, *curve) for curve in curves]
    return [*lines, Line(label, look, at, mean, low, high, marked=marked, quiet=quiet)]


def _thin(label: str, look: Look, x: Array, y: Array) -> Line:
    """One run as a thin line at its own points; of many, at some."""
    if len(x) > POINTS:
        some = np.linspace(x[0], x[-1], POINTS)
        x, y = some, np.interp(some, x, y)
    none = np.full_like(y, np.nan)
    return Line(label, look, x, y, none, none, thin=True)


def shown(value: float, form: Form) -> str:
    """Write the number of a tick."""
    if form == "percent":
        return f"{100 * value:.6g}%"
    if form == "seconds":
        return clock_time(value)
    if form == "count":
        return f"{value:.6g}" if abs(value) < 1000 else _short(value)
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _short(value: float) -> str:
    """Write a large number without the zeros that end its decimals."""
    return re.sub(r"\.0+(?=[kMG])|(?<=\.\d)0+(?=[kMG])", "", short_count(value))


def finding(title: str, lines: Sequence[Line], frame: Frame) -> str:
    """Return a chart in words: where each series ends, from the highest down, and where it began."""
    ends = []
    for line in known(lines):
        if not line.thin and not line.quiet:
            y = line.mean[np.isfinite(line.mean)]
            ends.append((float(y[-1]), float(y[0]), line.label))
    told = [f"{label} {_told(last, frame)} (from {_told(first, frame)})" for last, first, label in sorted(ends)[::-1]]
    if len(told) == 1:
        return f"{title}, over {frame.x_label}: {told[0]}."
    most = told if len(told) <= LISTED else [*told[: LISTED - 1], f"the lowest is {told[-1]}"]
    return f"{title}, over {frame.x_label}. Highest at the end: {', '.join(most)}."


def _told(value: float, frame: Frame) -> str:
    return shown(round(value, 3) if frame.y_form == "percent" else float(f"{value:.3g}"), frame.y_form)
