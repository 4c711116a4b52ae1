"""Learning curves: one figure of small multiples, one colour per algorithm, the mean over seeds and its 95% interval.

Training metrics are noisy from step to step, so each run is averaged over a few neighbouring steps first; the caption
says over how many. Held-out accuracy is drawn as measured. An interval over two seeds is twelve times as wide as their
distance from the mean: with fewer than three, thin lines show the seeds themselves instead.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from scipy.stats import t as student

from rlzoo.report.palette import Look, looks
from rlzoo.report.text import visible
from rlzoo.stats.intervals import CONFIDENCE
from rlzoo.store.files import replace

Horizontal = Literal["step", "tokens_sampled"]
Array = NDArray[np.float64]

HORIZONTAL_LABEL: dict[Horizontal, str] = {"step": "training steps", "tokens_sampled": "sampled tokens"}

FORMATS = ("png", "svg", "pdf")
GRID_POINTS = 200  # of a curve over tokens, where each run has positions of its own
STEPS_PER_WINDOW = 25  # the smoothing window is the run's length divided by this
SEEDS_FOR_INTERVAL = 3

# The layout, in inches. matplotlib can find one by itself, but that doubles the time of drawing.
PANEL = (2.45, 1.75)
BETWEEN = (0.92, 0.8)  # room for the labels of a panel
LEFT, RIGHT, BOTTOM, TITLE, LEGEND_ROW = 0.75, 0.15, 0.75, 0.3, 0.24

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "text.parse_math": False,  # names and paths are text, dollars included
    "svg.hashsalt": "rlzoo",  # the same curves make the same file
}


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


@dataclass(frozen=True)
class Panel:
    """One of the small multiples: what it shows and from which records."""

    title: str
    unit: str
    kind: Literal["train", "eval"]
    key: str
    percent: bool = False
    full_range: bool = False  # the axis spans 0 to 100%, whatever the data


PANELS = (
    Panel("Held-out accuracy", "problems solved", "eval", "accuracy", percent=True, full_range=True),
    Panel("Training reward", "mean per response", "train", "reward"),
    Panel("Response length", "tokens", "train", "length"),
    Panel("Entropy", "nats per token", "train", "entropy"),
    Panel("Clip fraction", "tokens without gradient", "train", "clip_fraction", percent=True),
    Panel("KL to the old policy", "nats per token", "train", "kl_old"),
    Panel("Silent groups", "groups of equal reward", "train", "silent_groups", percent=True),
    Panel("Gradient norm", "before clipping", "train", "gradient_norm"),
)


def draw(
    runs: Sequence[Curves],
    paths: Iterable[Path],
    x: Horizontal = "step",
    title: str = "",
    panels: Sequence[Panel] = PANELS,
) -> None:
    """Draw the runs' curves into files; each path's suffix says the format (.png, .svg, .pdf).

    Args:
        runs: one or more.
        x: `step`, or `tokens_sampled` (everything that was sampled, also what was discarded).
        panels: those for which no run has a number are left out.

    Raises:
        ValueError: no run has a number for any panel, or a format is unknown.
        UserError: a path is a link, a device or a folder.
        OSError: the disk refuses; the old file is still there.
    """
    with matplotlib.rc_context(STYLE):
        figure = plot(runs, x, title, panels)
        for path in paths:
            form = path.suffix.removeprefix(".")
            if form not in FORMATS:
                raise ValueError(f"the format is the file's suffix, one of {', '.join(FORMATS)}, not {path.suffix!r}")
            metadata = {"Date": None} if form == "svg" else None
            drawn = io.BytesIO()
            figure.savefig(drawn, dpi=150, format=form, metadata=metadata)
            replace(path, lambda file, drawn=drawn: file.write(drawn.getbuffer()))


@matplotlib.rc_context(STYLE)
def plot(runs: Sequence[Curves], x: Horizontal = "step", title: str = "", panels: Sequence[Panel] = PANELS) -> Figure:
    """Return the figure that `draw` saves; arguments and errors are the same."""
    shown = [panel for panel in panels if any(_points(run, panel, x)[1].size for run in runs)]
    if not shown:
        raise ValueError("there is nothing to draw: no run has a record with any of the metrics")
    runs = [dataclasses.replace(run, algorithm=visible(run.algorithm)) for run in runs]
    title = visible(title)
    algorithms = list(dict.fromkeys(run.algorithm for run in runs))
    window = smoothing_window(runs)
    alpha = min(0.15, 0.6 / len(algorithms))  # many shades on top of each other would hide the lines
    columns = min(4, len(shown)) if len(shown) != 6 else 3
    figure, axes = _grid(len(shown), columns, algorithms, title)
    for panel, ax in zip(shown, axes, strict=True):
        for algorithm, look in looks(algorithms).items():
            same = [run for run in runs if run.algorithm == algorithm]
            _draw_algorithm(ax, same, panel, x, window, alpha, look)
        _dress(ax, panel, x)
    corner = {"x": 1 - RIGHT / figure.get_figwidth(), "y": 0.06 / figure.get_figheight()}
    figure.text(s=_caption(runs, window), fontsize=8, color="#666666", ha="right", va="bottom", **corner)
    return figure


def smoothing_window(runs: Sequence[Curves]) -> int:
    """Return over how many neighbouring steps training metrics are averaged: odd, 1 for short runs."""
    longest = max(sum(record.get("kind") == "train" for record in run.records) for run in runs)
    return 2 * (longest // (2 * STEPS_PER_WINDOW)) + 1


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


def band(curves: Sequence[tuple[Array, Array]], grid: Array) -> tuple[Array, Array, Array]:
    """Return mean, low and high of several curves at the points of a grid, at each as `stats.interval`.

    nan where there is no curve; low and high also where there is only one.

    Args:
        curves: (x, y) of each run, x increasing, y finite; between its points a curve is a straight line.
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


def common_grid(xs: Sequence[Array], x: Horizontal) -> Array:
    """Return the positions at which runs are averaged: as far as more than half of them got."""
    ends = sorted(one[-1] for one in xs)
    end = ends[(len(ends) - 1) // 2]
    if x == "step":
        every = np.unique(np.concatenate(xs))
        return every[every <= end]
    return np.linspace(min(one[0] for one in xs), end, GRID_POINTS)


def _points(run: Curves, panel: Panel, x: Horizontal) -> tuple[Array, Array]:
    rows = [(r[x], r[panel.key]) for r in run.records if r.get("kind") == panel.kind and r.get(panel.key) is not None]
    array = np.asarray(rows, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _all_points(runs: Sequence[Curves], panel: Panel, x: Horizontal) -> list[tuple[Array, Array]]:
    return [(px, py) for px, py in (_points(run, panel, x) for run in runs) if px.size]


def evaluated(runs: Sequence[Curves], panel: Panel, x: Horizontal) -> list[tuple[Array, Array]]:
    """Return the (x, y) of each run's evaluations; a failed run keeps its last value as far as any other run got."""
    end = max((px[-1] for px, _ in _all_points(runs, panel, x)), default=0.0)
    curves = []
    for run in runs:
        px, py = _points(run, panel, x)
        if run.failed and px.size and px[-1] < end:
            px, py = np.append(px, end), np.append(py, py[-1])
        if px.size:
            curves.append((px, py))
    return curves


def _draw_algorithm(
    ax: Axes, runs: Sequence[Curves], panel: Panel, x: Horizontal, window: int, alpha: float, look: Look
) -> None:
    points = evaluated(runs, panel, x) if panel.kind == "eval" else _all_points(runs, panel, x)
    if not points:
        return
    smoothed = [(px, smooth(py, window) if panel.kind == "train" else py) for px, py in points]
    grid = common_grid([px for px, _ in points], x)
    mean, low, high = band(smoothed, grid)
    if len(points) == 1 and panel.kind == "train" and window > 1:
        ax.plot(*points[0], color=look.colour, linewidth=0.7, alpha=0.3)
    elif 1 < len(points) < SEEDS_FOR_INTERVAL:
        for curve in smoothed:
            ax.plot(*curve, **look.line, linewidth=0.7, alpha=0.45)
    elif len(points) >= SEEDS_FOR_INTERVAL:
        before = ax.dataLim.frozen()
        ax.fill_between(grid, low, high, color=look.colour, alpha=alpha, linewidth=0)
        # The axis spans what the runs did, not their intervals, which early on can be much wider.
        ax.dataLim.set(before)
        ax.update_datalim(np.concatenate([np.stack(curve, axis=1) for curve in smoothed]))
    measured = {"marker": look.marker, "markersize": 2.5} if panel.kind == "eval" and x == "step" else {}
    ax.plot(grid, mean, **look.line, linewidth=1.6, **measured)


def _dress(ax: Axes, panel: Panel, x: Horizontal) -> None:
    ax.set_title(panel.title)
    ax.set_ylabel(panel.unit)
    ax.set_xlabel(HORIZONTAL_LABEL[x])
    ax.margins(x=0.02)
    if x == "step":
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    else:
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    scale, unit = (100, "%") if panel.percent else (1, "")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.6g}{unit}"))
    if panel.full_range:
        ax.set_ylim(0, 1)
    elif panel.percent:
        ax.set_ylim(0, min(ax.get_ylim()[1], 1.02))


def _grid(panels: int, columns: int, algorithms: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with that many empty panels, with title and legend above them."""
    rows = -(-panels // columns)
    width = LEFT + columns * PANEL[0] + (columns - 1) * BETWEEN[0] + RIGHT
    letters_per_inch, room_for_line = 11, 7
    fitting = max(1, int(width * letters_per_inch / (max(map(len, algorithms)) + room_for_line)))
    in_row = min(fitting, len(algorithms))
    top = 0.45 + (TITLE if title else 0) + LEGEND_ROW * -(-len(algorithms) // in_row)
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
    handles = []
    for algorithm, look in looks(algorithms).items():
        handles.append(Line2D([], [], linewidth=2.2, label=algorithm, marker=look.marker, markersize=4, **look.line))
    legend = figure.legend(
        handles=handles,
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
