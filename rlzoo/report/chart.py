"""The chart engine: lines with intervals on two axes, drawn by matplotlib for the page and for files alike.

Every artist of a series carries a gid, `line-3` or `band-3`, 3 being its look's number. In an SVG it is the group's id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.axes
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from rlzoo.report.lines import Form, Frame, Line, known, shown
from rlzoo.report.series import Array
from rlzoo.report.text import visible

INK, EDGE, RULE, QUIET = "#444444", "#888888", "#e6e6e6", "#c3c9d0"
"""Colours of text, of the axis, of the lines behind a chart, and of what stands back."""
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # names and paths are text, dollars included
    "path.simplify": False,  # a reader takes values from the points of a line
    "svg.hashsalt": "rlzoo",  # the same curves make the same file
    "svg.fonttype": "none",  # text stays text
}

LEFT, RIGHT, TOP, BOTTOM = 50, 14, 28, 46
"""Room around a single chart, in points: for the labels of its axes, also in the larger letters of a phone."""
MARKED = 30
"""More points than this have no markers."""
MOST_TICKS = 6
HEADROOM = 0.04
"""Of the vertical axis, above and below what is drawn."""


def single(lines: Sequence[Line], frame: Frame, size: tuple[int, int]) -> Figure:
    """Return a figure with one chart; call it inside `matplotlib.rc_context(STYLE)`.

    Args:
        lines: at least one with a point.
        size: width and height in points.
    """
    width, height = size
    inner = (width - LEFT - RIGHT) / width, (height - TOP - BOTTOM) / height
    figure = Figure(figsize=(width / 72, height / 72))
    ax = figure.add_axes((LEFT / width, BOTTOM / height, *inner))
    figure.patch.set_visible(False)
    ax.patch.set_visible(False)
    draw_lines(ax, lines, frame)
    ax.tick_params("x", pad=7)
    ax.xaxis.labelpad = 8
    ax.set_title(visible(frame.y_label), x=-LEFT / (width * inner[0]), pad=12, weight="normal", size=9, color=INK)
    return figure


def draw_lines(ax: matplotlib.axes.Axes, lines: Sequence[Line], frame: Frame, alpha: float = 0.13) -> None:
    """Draw lines with their intervals, quiet ones behind, intervals behind all means; name the axes' numbers.

    Args:
        lines: at least one with a point.
        alpha: of the intervals.
    """
    lines = known(lines)
    least = _least(lines) if frame.log else None
    low, high = _vertical(lines, frame.y_form)
    for line in lines:
        _draw_line(ax, line, least, (low, high), alpha)
    if least is not None:
        ax.set_xscale("log")
    ax.set_ylim(low, high)
    _ticks_x(ax, lines, frame, least)
    ticks = _round_ticks(low, high)
    ax.set_yticks(ticks, [shown(tick, frame.y_form) for tick in ticks])
    ax.set_xlabel(visible(frame.x_label))
    ax.tick_params("y", length=0)
    ax.tick_params("x", color=RULE)
    ax.grid(False, axis="x")
    ax.spines["left"].set_visible(False)


def _draw_line(
    ax: matplotlib.axes.Axes, line: Line, least: float | None, limits: tuple[float, float], alpha: float
) -> None:
    """Draw one series. Intervals are cut off at the limits: early on they can be much wider than what runs did."""
    x = line.x if least is None else np.maximum(line.x, least)
    number = line.look.number
    inside = np.isfinite(line.low) & np.isfinite(line.high)
    if inside.sum() > 1 and not line.quiet:
        low, high = (np.clip(end[inside], *limits) for end in (line.low, line.high))
        colour = {"color": line.look.colour, "alpha": alpha, "linewidth": 0}
        ax.fill_between(x[inside], low, high, gid=f"band-{number}", zorder=1, clip_on=False, **colour)
    there = np.isfinite(line.mean)
    style = {"color": QUIET, "linewidth": 1.0} if line.quiet else {**line.look.line, "linewidth": 1.8}
    kind, depth = ("quiet", 1.5) if line.quiet else ("line", 3.0)
    if line.thin:
        kind, depth, style = "thin", 2.0, {**line.look.line, "linewidth": 0.8, "alpha": 0.5}
    if line.marked and not line.quiet and not line.thin and there.sum() <= MARKED:
        style |= {"marker": line.look.marker, "markersize": 5.0, "markeredgewidth": 0}
    ax.plot(x[there], line.mean[there], gid=f"{kind}-{number}", zorder=depth, clip_on=False, **style)


def _least(lines: Sequence[Line]) -> float | None:
    """Return where a logarithmic axis begins: a step before its first number above 0; None without one."""
    positive = np.concatenate([line.x for line in lines])
    positive = positive[positive > 0]
    return 0.7 * float(positive.min()) if positive.size else None


def _vertical(lines: Sequence[Line], form: Form) -> tuple[float, float]:
    """Span the means with some room. Intervals, early on much wider, get a quarter more and are cut off there."""
    low, high = _span([line.mean for line in lines], around=0.1)
    never_below = float(min(np.nanmin(line.mean) for line in lines)) >= 0
    most = max(1.0, float(max(np.nanmax(line.mean) for line in lines))) if form == "percent" else math.inf
    loud = [line for line in lines if not line.quiet and np.isfinite(line.low).any()]
    if loud:
        room = 0.25 * (high - low)
        low = max(low - room, min(low, float(min(np.nanmin(line.low) for line in loud))))
        high = min(high + room, max(high, float(max(np.nanmax(line.high) for line in loud))))
    edge = HEADROOM * (high - low)
    low = 0.0 if never_below and low < 0.3 * high else low - edge
    return low, min(high + edge, most)


def _span(values: Sequence[Array], around: float = 0.0) -> tuple[float, float]:
    """Return the least and the largest number; of a constant its surroundings, the share `around` of it or 0.5."""
    every = np.concatenate(values)
    every = every[np.isfinite(every)]
    low, high = float(every.min()), float(every.max())
    half = around * abs(low) or 0.5
    return (low, high) if high > low else (low - half, high + half)


def _ticks_x(ax: matplotlib.axes.Axes, lines: Sequence[Line], frame: Frame, least: float | None) -> None:
    low, high = _span([line.x for line in lines])
    if least is None:
        ticks = _round_ticks(low, high, whole=frame.x_form in ("count", "seconds"))
        room = 0.01 * (high - low)
        ax.set_xlim(low - room, high + room)
    else:
        zero = [least] if low < least else []
        first = least if zero else low
        ticks = [*zero, *(frame.ticks or (tick for tick in log_ticks(first, high) if not zero or tick > 1.3 * least))]
        ax.set_xlim(first / 1.02, high * 1.02)
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, ["0" if tick == least else shown(tick, frame.x_form) for tick in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten; of many, powers of ten alone; where fewer than two fit, round numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [n * 10.0**k for k in powers for n in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) > MOST_TICKS:
        return [tick for tick in ticks if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
    return ticks if len(ticks) > 1 else _round_ticks(low, high)


def _round_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    edge = 1e-9 * (high - low)
    return [float(tick) for tick in ticks if low - edge <= tick <= high + edge]
