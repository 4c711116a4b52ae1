"""The figure of a reproduced result: our curves and the published reference points, one panel per metric."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from rlzoo.experiments.reproduce import Reproduction
from rlzoo.store.files import replace

PANEL = (3.2, 2.6)  # inches


def draw(made: Reproduction, path: Path) -> None:
    """Draw into a file: lines and dots are ours, crosses with bars are published numbers and their tolerances."""
    count = max(len(made.curves), 1)
    figure = Figure(figsize=(PANEL[0] * count, PANEL[1]), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for panel, (metric, points) in zip(panels, made.curves.items(), strict=False):
        panel.plot([step for step, _ in points], [value for _, value in points], "o-", ms=3, lw=1.2, label="ours")
        every = [point.reference for point in made.points if point.reference.metric == metric]
        known = [one for one in every if one.since is None and one.relation == "near"]
        if known:
            panel.errorbar(
                [one.step for one in known],
                [one.value for one in known],
                yerr=[one.tolerance for one in known],
                fmt="x",
                color="black",
                capsize=3,
                label="published",
            )
        panel.set_title(metric, fontsize=9, loc="left")
        panel.set_xlabel("training steps", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=7, frameon=False)
    replace(path, lambda file: figure.savefig(file, format=path.suffix.removeprefix("."), dpi=150))
