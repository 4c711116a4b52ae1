"""Which charts a report has, and how its runs become their lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from rlzoo.report.inline import chart
from rlzoo.report.lines import Form, Frame, Line, averaged
from rlzoo.report.palette import Look
from rlzoo.report.panels import PAGE, PANELS
from rlzoo.report.read import Study
from rlzoo.report.results import LABELS
from rlzoo.report.sensitivity import Sensitivity
from rlzoo.report.series import SEEDS_FOR_INTERVAL, Curve, at_reward, grid, half_way, held_out
from rlzoo.report.series import smoothing_window as window_of

WIDE, NARROW = (640, 330), (340, 230)
"""Sizes in points: near those on the page, so that text is equally large in all charts."""
LEGIBLE, LOUD = 8, 6
"""With more lines than `LEGIBLE` on one chart the best `LOUD` keep their colours, the others are grey."""
MOST_SEEDS_DRAWN = 48
ENLARGED = 0.5
"""Where the second half of training spans less than this share of the whole, it has a chart of its own."""
LOGARITHMIC = ("tokens_sampled", "tokens_trained", "prompts_sampled")
SEEDS_FOR_SHADE = 5
"""Of a training metric: wide intervals of five algorithms hide the lines."""
METRICS = ("step", *(key for key in LABELS if key != "step"), *PANELS)
"""What a study is read with."""


@dataclass(frozen=True)
class Drawn:
    """A chart with its words.

    Attributes:
        axis: what it is drawn over, where the page lets its reader choose.
    """

    title: str
    note: str
    svg: Markup
    axis: str = ""


class Charts:
    """The charts of one study."""

    def __init__(self, study: Study, look: Mapping[str, Look], ranking: Sequence[str]) -> None:
        """Prepare the charts.

        Args:
            look: of each algorithm.
            ranking: algorithms, the best first: where there are too many, those are drawn in colour.
        """
        self.look = look
        self.runs = {name: [run.curves for run in study.of(name)] for name in look}
        self.many = len(look) > LEGIBLE
        self.loud = set(ranking[:LOUD]) if self.many else set(look)
        self.count = 0
        self.window = window_of([run for runs in self.runs.values() for run in runs])

    def accuracy(self) -> list[Drawn]:
        """Return validation accuracy over every budget that the records count, to choose one from."""
        drawn = []
        for axis, label in LABELS.items():
            lines = [line for name in self.look for line in self._accuracy(name, axis, seeds=True)]
            frame = Frame(label, "problems solved", _form(axis), "percent", log=axis in LOGARITHMIC)
            charts = [*self._drawn(f"Accuracy over {label}", "Means end where all seeds got.", lines, frame, WIDE)]
            late = second_half(lines)
            if late:
                title = f"Accuracy over {label}, enlarged"
                note = "The second half of what every algorithm spent."
                charts += self._drawn(title, note, late, replace(frame, log=False), WIDE)
            drawn += [replace(one, axis=axis) for one in charts]
        return drawn

    def one_by_one(self) -> list[Drawn]:
        """Return a chart of validation accuracy for each of many algorithms, the others in grey behind it."""
        if not self.many:
            return []
        frame = Frame(LABELS["step"], "problems solved", "count", "percent")
        lines = [line for name in self.look for line in self._accuracy(name, "step", loud=set(self.look))]
        return [
            one
            for name in self.look
            for one in self._drawn(
                name, "", [line if line.label == name else replace(line, quiet=True) for line in lines], frame, NARROW
            )
        ]

    def diagnostics(self) -> list[Drawn]:
        """Return the training metrics over steps; those that no run has are left out."""
        drawn = []
        for key in PAGE:
            panel = PANELS[key]
            curves = {name: [run.trained(key, self.window) for run in runs] for name, runs in self.runs.items()}
            frame = Frame(LABELS["step"], panel.unit, y_form=panel.form)
            drawn += self._drawn(panel.title, panel.note, self._trained(curves), frame, NARROW)
        return drawn

    def matched(self) -> list[Drawn]:
        """Return entropy and length where the algorithms had reached the same training reward."""
        drawn = []
        for key, title, unit in (("entropy", "Entropy", "nats per token"), ("length", "Length", "tokens")):
            curves = {name: [at_reward(run, key, self.window) for run in runs] for name, runs in self.runs.items()}
            frame = Frame("training reward, when first reached", unit, "number")
            drawn += self._drawn(f"{title} at matched reward", "", self._trained(curves), frame, NARROW)
        return drawn

    def sensitivity(self, search: Sensitivity) -> list[Drawn]:
        """Return the search's accuracy against the values tried, on a logarithmic axis."""
        lines = []
        for row in search.scores:
            means = search.means(row)
            columns = [[getattr(one, end) for one in means.values()] for end in ("mean", "low", "high")]
            mean, low, high = (np.array(column, np.float64) for column in columns)  # None, with one seed: nan
            if min(len(seeds) for seeds in search.scores[row].values()) < SEEDS_FOR_INTERVAL:
                low = high = np.full_like(mean, np.nan)
            lines.append(Line(row, self.look[row], np.array(list(means)), mean, low, high, marked=True))
        frame = Frame(search.field, "problems solved", "number", "percent", log=True, ticks=tuple(lines[0].x))
        title = f"Accuracy over {search.field}"
        return list(self._drawn(title, "Validation accuracy of the search's runs.", lines, frame, WIDE))

    def _drawn(
        self, title: str, note: str, lines: Sequence[Line], frame: Frame, size: tuple[int, int]
    ) -> Iterator[Drawn]:
        self.count += 1
        svg = chart(title, lines, frame, f"chart{self.count}", size)
        if svg is not None:
            yield Drawn(title, note, svg)

    def _accuracy(self, name: str, axis: str, seeds: bool = False, loud: set[str] | None = None) -> list[Line]:
        """One algorithm's seeds, each as far as it got, and their mean as far as all of them got."""
        curves, end = held_out(self.runs[name], axis)
        if not curves:
            return []
        seeds = seeds and sum(len(self.runs[one]) for one in self.loud) <= MOST_SEEDS_DRAWN
        exact, quiet = axis in ("step", "updates"), name not in (loud or self.loud)
        at = grid(curves, end, exact, log=axis in LOGARITHMIC)
        return averaged(name, self.look[name], curves, at, marked=exact, seeds=seeds, quiet=quiet)

    def _trained(self, curves: Mapping[str, list[Curve]]) -> list[Line]:
        """Every algorithm's mean of a training metric, as far as more than half of its runs got."""
        lines = []
        for name, runs in curves.items():
            whole = [(x, y) for x, y in runs if x.size]
            if whole:
                at, quiet = grid(whole, half_way(whole), exact=False), name not in self.loud
                lines += averaged(name, self.look[name], whole, at, shaded=SEEDS_FOR_SHADE, quiet=quiet)
        return lines


def second_half(lines: Sequence[Line]) -> list[Line]:
    """Return the means in the second half of what all of them span; [] if they differ there as much as in the whole."""
    means = [line for line in lines if not line.quiet and not line.thin]
    if not means:
        return []
    end = min(float(line.x[-1]) for line in means)
    cut = [line.within(end / 2, end) for line in means]
    if min(len(line.x) for line in cut) < 2:
        return []
    whole, late = (float(np.ptp(np.concatenate([line.mean for line in some]))) for some in (means, cut))
    return cut if late < ENLARGED * whole else []


def _form(axis: str) -> Form:
    return "seconds" if axis == "engine_s" else "count"
