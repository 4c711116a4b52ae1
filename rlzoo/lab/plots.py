"""Figures of claim cards and of the laboratory's tables: lines over numbers, bars over names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlzoo.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
MOST_BARS = 24


@dataclass(frozen=True)
class Plot:
    """Data of a figure: lines over x, or bars if x holds names.

    Attributes:
        series: y values by label, each as long as `x`.
        log_x, log_y: logarithmic axes.
    """

    x_label: str
    x: Sequence[float] | Sequence[str]
    y_label: str
    series: dict[str, Sequence[float]]
    log_x: bool = False
    log_y: bool = False


def scalars(numbers: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of a nested structure, each with its path."""
    if isinstance(numbers, dict):
        for key, value in numbers.items():
            yield from scalars(value, f"{path} {key}".strip())
    elif isinstance(numbers, list | tuple):
        for place, value in enumerate(numbers):
            yield from scalars(value, f"{path} {place + 1}".strip())
    elif isinstance(numbers, int | float) and math.isfinite(numbers):
        yield path, float(numbers)


def plot_of(numbers: dict[str, Any]) -> Plot:
    """Return bars of the first numbers of a card without a plot."""
    found = list(scalars(numbers))[:MOST_BARS]
    return Plot("", [name for name, _ in found], "", {"measured": [x for _, x in found]})


def draw(panels: dict[str, Plot], path: Path) -> None:
    """Draw titled plots below each other into a file; its suffix sets the format.

    Raises:
        UserError: a suffix other than `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--out {path}: a figure is .png, .svg or .pdf")
    import matplotlib  # imported here, because printing a card does not need it
    from matplotlib.figure import Figure

    from rlzoo.report.curves import STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 3.4 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axis, (title, plot) in zip(axes, panels.items(), strict=True):
            _panel(axis, title, plot)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _panel(axis: Axes, title: str, plot: Plot) -> None:
    from rlzoo.report.palette import looks

    names = all(isinstance(x, str) for x in plot.x)
    width = 0.8 / max(len(plot.series), 1)
    for place, (label, look) in enumerate(looks(plot.series).items()):
        y = list(plot.series[label])
        if names:
            left = [i + (place - (len(plot.series) - 1) / 2) * width for i in range(len(y))]
            axis.bar(left, y, width, color=look.colour, label=label)
        else:
            axis.plot(list(plot.x), y, label=label, marker=look.marker, markersize=4, **look.line)
    if names:
        axis.set_xticks(range(len(plot.x)), [str(x) for x in plot.x], rotation=30, ha="right", fontsize=8)
    if plot.log_x and not names:
        axis.set_xscale("log", base=2)
    if plot.log_y:
        axis.set_yscale("log")
    axis.set_title(title)
    axis.set_xlabel(plot.x_label)
    axis.set_ylabel(plot.y_label)
    if len(plot.series) > 1:
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
