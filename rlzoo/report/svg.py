"""Charts as SVG inside a page: lines with intervals on two axes. Colours and dashes come from the page's style sheet.

A series has the classes `s` and `aN`, N the algorithm's number on the page; it has a `line`, a `band` and `mark`s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlzoo.report.progress import clock_time, short_count
from rlzoo.report.text import visible

Array = NDArray[np.float64]
Form = Literal["count", "percent", "number", "seconds"]

WIDE, NARROW = (500, 300), (340, 230)  # the space that a chart has on the page, so that all have letters of one size
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 42
MARKED = 30  # more points than this have no markers
LOG10 = math.log(10)
HEADROOM = 0.04  # of an axis, above and below what is drawn


@dataclass(frozen=True)
class Line:
    """One series: mean and interval at increasing positions; nan where there is none.

    Attributes:
        number: of its algorithm on the page.
        marker: matplotlib's name of it; "" for none.
        quiet: drawn in grey, behind the others and without an interval.
        thin: of one seed.
        at: the numbers at the positions, where the axis is logarithmic.
    """

    label: str
    number: int
    x: Array
    mean: Array
    low: Array
    high: Array
    marker: str = ""
    quiet: bool = False
    thin: bool = False
    at: Array | None = None


@dataclass(frozen=True)
class Axes:
    """What the two axes show.

    Attributes:
        y_range: None: what the means, and what fits of the intervals, span.
        log: the horizontal axis is logarithmic; 0 stands at its left edge.
        ticks: positions that the horizontal axis names; none: round ones.
    """

    x_label: str
    y_label: str
    x_form: Form = "count"
    y_form: Form = "number"
    y_range: tuple[float, float] | None = None
    log: bool = False
    ticks: tuple[float, ...] = ()


def chart(lines: Sequence[Line], axes: Axes, title: str, size: tuple[int, int] = WIDE) -> Markup | None:
    """Return an <svg>; None where no line has a point.

    Args:
        title: what a screen reader says.
        size: width and height.
    """
    lines = [line for line in lines if np.isfinite(line.mean).any()]
    if not lines:
        return None
    least = _least([line.x for line in lines]) if axes.log else None
    if least is not None:
        lines = [replace(line, x=np.log(np.maximum(line.x, least)), at=line.x) for line in lines]
    x_low, x_high = _span([line.x for line in lines])
    y_low, y_high = axes.y_range or _vertical(lines, axes.y_form)
    frame = _Frame(x_low, x_high, y_low, y_high, *size)
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(*size, visible(title)),
        _grid(frame, axes, least),
    ]
    # Quiet lines lie behind, intervals behind all means.
    ordered = sorted(lines, key=lambda line: not line.quiet)
    parts += [_band(line, frame) for line in ordered if not line.quiet]
    parts += [_mean(line, frame, axes) for line in ordered]
    return Markup("").join([*parts, Markup("</svg>")])


@dataclass(frozen=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.width - RIGHT

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM

    def x(self, value: Array) -> Array:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - LEFT)

    def y(self, value: Array) -> Array:
        """Return the height on the page, held inside the frame: intervals may leave it."""
        share = (np.clip(value, self.y_low, self.y_high) - self.y_low) / (self.y_high - self.y_low)
        return self.bottom - share * (self.bottom - TOP)


def _least(values: Sequence[Array]) -> float | None:
    """Return where a logarithmic axis begins: a step before its first number above 0; None without one."""
    positive = np.concatenate(values)
    positive = positive[positive > 0]
    return 0.7 * float(positive.min()) if positive.size else None


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; of many, powers of ten alone."""
    ticks = [n * 10.0**k for k in range(math.floor(low / LOG10), math.ceil(high / LOG10) + 1) for n in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= math.log(tick) <= high]
    return ticks if len(ticks) <= 6 else [tick for tick in ticks if str(tick)[0] == "1"]


def _span(values: Sequence[Array]) -> tuple[float, float]:
    every = np.concatenate(values)
    every = every[np.isfinite(every)]
    low, high = float(every.min()), float(every.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _vertical(lines: Sequence[Line], form: Form) -> tuple[float, float]:
    """Span the means with some room. Intervals, early on much wider, get as much again and are cut off there."""
    low, high = _span([line.mean for line in lines])
    never_below = low >= 0
    loud = [line for line in lines if not line.quiet and np.isfinite(line.low).any()]
    if loud:
        room = 0.25 * (high - low)
        low = max(low - room, min(low, float(min(np.nanmin(line.low) for line in loud))))
        high = min(high + room, max(high, float(max(np.nanmax(line.high) for line in loud))))
    edge = HEADROOM * (high - low)
    low = 0.0 if never_below and low < 0.3 * high else low - edge
    return low, min(high + edge, 1.0) if form == "percent" else high + edge


def _grid(frame: _Frame, axes: Axes, least: float | None = None) -> Markup:
    bottom, right = frame.bottom, frame.right
    parts = [Markup('<text class="name" x="0" y="12">{}</text>').format(visible(axes.y_label))]
    for tick in _ticks(frame.y_low, frame.y_high, 5):
        y = round(float(frame.y(np.array(tick))), 1)
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, right))
        label = shown(tick, axes.y_form)
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(LEFT - 6, y + 4, label)
        )
    if least is None:
        placed = [(tick, tick) for tick in _ticks(frame.x_low, frame.x_high, 5, whole=axes.x_form == "count")]
    else:
        placed = [(math.log(tick), tick) for tick in axes.ticks or _log_ticks(frame.x_low, frame.x_high)]
    for place, tick in placed:
        x = round(float(frame.x(np.array(place))), 1)
        label = shown(tick, axes.x_form)
        parts.append(Markup('<path class="grid" d="M{} {}v4"/>').format(x, bottom))
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(x, bottom + 17, label)
        )
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, bottom, right))
    middle = (LEFT + right) / 2
    parts.append(
        Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            middle, frame.height - 6, visible(axes.x_label)
        )
    )
    return Markup("").join(parts)


def _ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    ticks = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    edge = 1e-9 * (high - low)
    return [float(tick) for tick in ticks if low - edge <= tick <= high + edge]


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


def _band(line: Line, frame: _Frame) -> Markup:
    known = np.isfinite(line.low) & np.isfinite(line.high)
    if known.sum() < 2:
        return Markup("")
    x = frame.x(line.x[known])
    there = _points(x, frame.y(line.high[known]))
    back = _points(x[::-1], frame.y(line.low[known])[::-1])
    return Markup('<path class="s a{} band" d="M{}L{}Z"/>').format(line.number, there, back)


def _mean(line: Line, frame: _Frame, axes: Axes) -> Markup:
    known = np.isfinite(line.mean)
    x, y = frame.x(line.x[known]), frame.y(line.mean[known])
    kind = "quiet" if line.quiet else f"s a{line.number}" + (" thin" if line.thin else "")
    parts = [
        Markup('<path class="{} line" d="M{}"><title>{}</title></path>').format(
            kind, _points(x, y), visible(line.label)
        )
    ]
    if line.marker and not line.quiet and len(x) <= MARKED:
        numbers = (line.x if line.at is None else line.at)[known]
        for a, b, at, value in zip(x, y, numbers, line.mean[known], strict=True):
            told = f"{line.label}: {shown(round(float(value), 3), axes.y_form)} at {shown(float(at), axes.x_form)}"
            path = marker(line.marker, float(a), float(b))
            parts.append(
                Markup('<path class="{} mark" d="{}"><title>{}</title></path>').format(kind, path, visible(told))
            )
    return Markup("").join(parts)


def _points(x: Array, y: Array) -> str:
    return " ".join(f"{a:.1f} {b:.1f}".replace(".0 ", " ") for a, b in zip(x, y, strict=True))


def marker(name: str, x: float, y: float) -> str:
    """Return the path of a marker of matplotlib's name, about 7 wide, around a point."""
    return f"M{x:.1f} {y:.1f}" + _MARKERS[name]


_MARKERS = {
    "o": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0",
    "s": "m-2.8 -2.8h5.6v5.6h-5.6z",
    "^": "m0 -3.8l3.6 6.4h-7.2z",
    "v": "m0 3.8l3.6 -6.4h-7.2z",
    "D": "m0 -3.9l3.9 3.9l-3.9 3.9l-3.9 -3.9z",
    "P": "m-1.2 -3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
    "X": "m-3.6 -2.2l1.4 -1.4 2.2 2.2 2.2 -2.2 1.4 1.4 -2.2 2.2 2.2 2.2 -1.4 1.4 -2.2 -2.2 -2.2 2.2 -1.4 -1.4 2.2-2.2z",
}


def key(number: int, name: str) -> Markup:
    """Return the sample of an algorithm's line that stands in a legend or before its name in a table."""
    return Markup(
        '<svg class="key" viewBox="0 0 30 10" aria-hidden="true"><path class="a{0} line" d="M0 5H30"/>'
        '<path class="a{0} mark" d="{1}"/></svg>'
    ).format(number, marker(name, 15, 5))


def interval(mean: float, low: float | None, high: float | None, margin: float, limit: float, kind: str) -> Markup:
    """Return a difference on a line from -limit to limit with zero, and the margin around it, in its middle.

    Args:
        kind: a class of the style sheet, which says what is known of the difference.
    """

    def at(value: float) -> float:
        return round(100 + 96 * value / limit, 1)

    bar = Markup("")
    if low is not None and high is not None:
        bar = Markup('<path class="bar" d="M{} 15H{}"/>').format(at(low), at(high))
    return Markup(
        '<svg class="interval {}" viewBox="0 0 200 30" aria-hidden="true"><path class="margin" d="M{} 0V30H{}V0z"/>'
        '<path class="axis" d="M100 0V30"/>{}<circle cx="{}" cy="15" r="4"/></svg>'
    ).format(kind, at(-margin), at(margin), bar, at(mean))


def scale(limit: float) -> Markup:
    """Return the numbers at the ends and in the middle of `interval`'s line, in points."""
    text = Markup('<text class="tick" x="{}" y="12" text-anchor="{}">{}</text>')
    words = Markup("").join(
        text.format(x, anchor, f"{100 * value:+.1f}" if value else "0")
        for x, anchor, value in ((4, "start", -limit), (100, "middle", 0.0), (196, "end", limit))
    )
    return Markup('<svg class="interval chart" viewBox="0 0 200 16" aria-hidden="true">{}</svg>').format(words)
