"""The figure of `rlzoo lab`: direction and error of each objective's gradient along four axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rlzoo.lab.measure import Measurement, Setting
from rlzoo.report.curves import STYLE
from rlzoo.report.palette import looks

AXES: dict[str, tuple[float, ...]] = {
    "group_size": (2, 4, 8, 16),
    "longest": (2, 3, 4, 5),
    "success": (0.02, 0.1, 0.25, 0.5, 0.8),
}
"""Settings that the sweep varies one at a time, at the first update."""

TITLES = {
    "group_size": "Group size",
    "longest": "Longest response, tokens",
    "success": "Success rate of the base",
    "update": "Update within the rollout",
}


def along(rows: Sequence[Measurement], centre: Setting, axis: str) -> list[Measurement]:
    """Return the measurements of one objective that lie on an axis through the centre, ordered along it."""
    if axis == "update":
        return [row for row in rows if row.setting == centre]
    here = replace(centre, updates=1)
    on = [
        row
        for row in rows
        if row.update == 1 and replace(row.setting, updates=1, **{axis: getattr(here, axis)}) == here
    ]
    return sorted(on, key=lambda row: getattr(row.setting, axis))


def draw(rows: Sequence[Measurement], centre: Setting, budget: float, path: Path) -> None:
    """Draw a sweep into a file.

    Args:
        rows: the result of `measure.sweep` over `AXES`.
        budget: sampled tokens for which the error is shown.
        path: its suffix sets the format.
    """
    names = list(dict.fromkeys(row.objective for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 5.4), layout="constrained")
        grid = figure.subplots(2, len(TITLES), sharey="row")
        for column, axis in enumerate(TITLES):
            for position, (name, drawn) in enumerate(looks(names).items()):
                line = along([row for row in rows if row.objective == name], centre, axis)
                x = [row.update if axis == "update" else getattr(row.setting, axis) for row in line]
                look = {**drawn.line, "marker": drawn.marker, "markersize": 3}
                look["linewidth"] = 1.2 + 0.9 * (
                    len(names) - 1 - position
                )  # equal curves stay visible under each other
                grid[0, column].plot(x, [row.cosine for row in line], **look)
                low = [row.cosine_low for row in line]
                grid[0, column].fill_between(x, low, [row.cosine_high for row in line], color=look["color"], alpha=0.15)
                grid[1, column].plot(x, [row.error(budget) for row in line], **look)
            grid[1, column].set_xlabel(TITLES[axis])
            _scale(axis, grid[0, column], grid[1, column])
        grid[0, 0].set_title("Cosine of the expected gradient with the true one")
        grid[1, 0].set_title(f"Relative squared error after {budget:,.0f} sampled tokens")
        grid[1, 0].set_yscale("log")
        lines = [Line2D([], [], label=name, **drawn.line) for name, drawn in looks(names).items()]
        figure.legend(handles=lines, loc="outside lower center", ncols=min(len(names), 6), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _scale(axis: str, *panels: Axes) -> None:
    """Scale the x axis: powers of two for group sizes, percent for success rates, integers for counts."""
    for panel in panels:
        if axis == "group_size":
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        elif axis == "success":
            panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
        else:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
