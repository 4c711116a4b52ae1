"""The picture of learning curves: one figure of small multiples, as a PNG, SVG or PDF file.

The page's engine draws it, with the page's means, intervals and smoothing. A caption says how seeds are shown.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlzoo.report.chart import STYLE, draw_lines
from rlzoo.report.lines import Frame, Line, averaged, known
from rlzoo.report.palette import Look, looks
from rlzoo.report.panels import PANELS, PICTURE
from rlzoo.report.results import LABELS
from rlzoo.report.series import SEEDS_FOR_INTERVAL, Curves, grid, half_way, held_out, smoothing_window
from rlzoo.report.text import visible
from rlzoo.store.files import replace

Horizontal = Literal["step", "tokens_sampled"]

FORMATS = ("png", "svg", "pdf")

# The layout, in inches. matplotlib can find one by itself, but that doubles the time of drawing.
PANEL = (2.45, 1.75)
BETWEEN = (0.92, 0.8)  # room for the labels of a panel
LEFT, RIGHT, BOTTOM, TITLE, LEGEND_ROW = 0.75, 0.15, 0.75, 0.3, 0.24


def draw(runs: Sequence[Curves], paths: Iterable[Path], x: Horizontal = "step", title: str = "") -> None:
    """Draw the runs' curves into files; each path's suffix says the format (.png, .svg, .pdf).

    Args:
        runs: one or more.
        x: `step`, or `tokens_sampled` (everything that was sampled, also what was discarded).

    Raises:
        ValueError: no run has a number for any panel, or a format is unknown.
        UserError: a path is a link, a device or a folder.
        OSError: the disk refuses; the old file is still there.
    """
    with matplotlib.rc_context(STYLE):
        figure = plot(runs, x, title)
        for path in paths:
            form = path.suffix.removeprefix(".")
            if form not in FORMATS:
                raise ValueError(f"the format is the file's suffix, one of {', '.join(FORMATS)}, not {path.suffix!r}")
            metadata = {"Date": None} if form == "svg" else None
            drawn = io.BytesIO()
            figure.savefig(drawn, dpi=150, format=form, metadata=metadata)
            replace(path, lambda file, drawn=drawn: file.write(drawn.getbuffer()))


@matplotlib.rc_context(STYLE)
def plot(runs: Sequence[Curves], x: Horizontal = "step", title: str = "") -> Figure:
    """Return the figure that `draw` saves; arguments and errors are the same. Panels without a number are left out."""
    runs = [dataclasses.replace(run, algorithm=visible(run.algorithm)) for run in runs]
    look = looks(run.algorithm for run in runs)
    window = smoothing_window(runs)
    frame = Frame(LABELS[x], "problems solved", y_form="percent", log=x == "tokens_sampled")
    panels = [("Held-out accuracy", frame, _accuracy(runs, look, x))]
    for key in PICTURE:
        panel = PANELS[key]
        frame = Frame(LABELS[x], panel.unit, y_form=panel.form, log=x == "tokens_sampled")
        panels.append((panel.title, frame, _trained(runs, look, key, window, x)))
    panels = [(name, frame, lines) for name, frame, lines in panels if known(lines)]
    if not panels:
        raise ValueError("there is nothing to draw: no run has a record with any of the metrics")
    columns = min(4, len(panels)) if len(panels) != 6 else 3
    figure, axes = _grid(len(panels), columns, look, visible(title))
    alpha = min(0.15, 0.6 / len(look))  # many shades on top of each other would hide the lines
    for ax, (name, frame, lines) in zip(axes, panels, strict=True):
        draw_lines(ax, lines, frame, alpha)
        ax.set_title(name)
        ax.set_ylabel(frame.y_label)
    corner = {"x": 1 - RIGHT / figure.get_figwidth(), "y": 0.06 / figure.get_figheight()}
    figure.text(s=_caption(runs, window), fontsize=8, color="#666666", ha="right", va="bottom", **corner)
    return figure


def _accuracy(runs: Sequence[Curves], look: dict[str, Look], x: Horizontal) -> list[Line]:
    lines = []
    for name, one in look.items():
        curves, end = held_out([run for run in runs if run.algorithm == name], x)
        if curves:
            at = grid(curves, end, exact=x == "step", log=x == "tokens_sampled")
            lines += averaged(name, one, curves, at, marked=x == "step")
    return lines


def _trained(runs: Sequence[Curves], look: dict[str, Look], key: str, window: int, x: Horizontal) -> list[Line]:
    lines = []
    for name, one in look.items():
        found = [run.trained(key, window, x) for run in runs if run.algorithm == name]
        curves = [curve for curve in found if curve[0].size]
        if curves:
            lines += averaged(name, one, curves, grid(curves, half_way(curves), exact=False, log=x == "tokens_sampled"))
    return lines


def _grid(panels: int, columns: int, look: dict[str, Look], title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many empty panels, with title and legend above them."""
    rows = -(-panels // columns)
    width = LEFT + columns * PANEL[0] + (columns - 1) * BETWEEN[0] + RIGHT
    letters_per_inch, room_for_line = 11, 7
    fitting = max(1, int(width * letters_per_inch / (max(map(len, look)) + room_for_line)))
    in_row = min(fitting, len(look))
    top = 0.45 + (TITLE if title else 0) + LEGEND_ROW * -(-len(look) // in_row)
    height = top + rows * PANEL[1] + (rows - 1) * BETWEEN[1] + BOTTOM
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=LEFT / width,
        right=1 - RIGHT / width,
        bottom=BOTTOM / height,
        top=1 - top / height,
        wspace=BETWEEN[0] / PANEL[0],
        hspace=BETWEEN[1] / PANEL[1],
    )
    legend = figure.legend(
        handles=[
            Line2D([], [], linewidth=2.2, label=name, marker=one.marker, markersize=4, **one.line)
            for name, one in look.items()
        ],
        loc="upper left",
        bbox_to_anchor=(0, 1),
        ncols=in_row,
        frameon=False,
        fontsize=10,
        title=title or None,
        title_fontsize=12,
        alignment="left",
    )
    legend.get_title().set_fontweight("bold")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def _caption(runs: Sequence[Curves], window: int) -> str:
    seeds = len({run.seed for run in runs})
    if seeds == 1:
        lines = "one seed"
    elif seeds < SEEDS_FOR_INTERVAL:
        lines = f"thick: mean over {seeds} seeds, thin: each seed"
    else:
        lines = f"mean over {seeds} seeds, shaded: 95% t interval"
    return lines + (f"; training metrics averaged over {window} steps" if window > 1 else "")
