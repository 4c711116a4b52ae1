"""The figure of `rlzoo values`: reward and value errors of each learner over sampled episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlzoo.lab.families import Row
from rlzoo.report.curves import STYLE
from rlzoo.report.palette import looks

PANELS = {
    "reward": "Reward of the policy",
    "q_error": "Largest |Q - Q*|",
    "over": "Overestimate of V*",
    "critic_error": "Critic's |V - V$^π$|",
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw means over seeds with 95% intervals into a file; its suffix sets the format."""
    drawn = looks(row.learner for row in rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        panels = figure.subplots(1, len(PANELS))
        for panel, (measure, title) in zip(panels, PANELS.items(), strict=True):
            for name, look in drawn.items():
                line = [
                    (row.episodes, found) for row in rows if row.learner == name and (found := row.measures[measure])
                ]
                if not line:
                    continue
                x, means = [episodes for episodes, _ in line], [found.mean for _, found in line]
                panel.plot(x, means, **look.line, marker=look.marker, markersize=3)
                if line[0][1].low is not None:
                    low, high = [found.low for _, found in line], [found.high for _, found in line]
                    panel.fill_between(x, low, high, color=look.colour, alpha=0.12)
            panel.set_xscale("log", base=2)
            panel.set_xlabel("sampled episodes")
            panel.set_title(title)
        panels[2].axhline(0, color="#888888", linewidth=0.8)
        lines = [Line2D([], [], **look.line, marker=look.marker, label=name) for name, look in drawn.items()]
        figure.legend(handles=lines, loc="outside lower center", ncols=min(len(drawn), 6), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
