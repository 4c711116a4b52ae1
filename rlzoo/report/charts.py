"""Which charts a report has, and how runs become their lines: smoothed, averaged over seeds, thinned out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rlzoo.report.curves import SEEDS_FOR_INTERVAL, STEPS_PER_WINDOW, band, smooth
from rlzoo.report.palette import Look
from rlzoo.report.read import ReadRun, Study
from rlzoo.report.results import BUDGETS
from rlzoo.report.sensitivity import Sensitivity
from rlzoo.report.svg import NARROW, WIDE, Axes, Form, Line, chart, shown
from rlzoo.stats.scores import AXES

Array = NDArray[np.float64]

POINTS = 100  # of a line
LEGIBLE = 8  # more lines than this on one chart cannot be distinguished: the best keep their colours
LOUD = 6
MOST_SEEDS_DRAWN = 48
LOGARITHMIC = ("tokens_sampled", "tokens_trained")
SEEDS_FOR_SHADE = 5  # of a training metric: wide intervals of five algorithms hide the lines


@dataclass(frozen=True)
class Panel:
    """One chart of a training metric against steps: what it shows, and how to read it."""

    title: str
    key: str
    unit: str
    note: str
    form: Form = "number"


PANELS = (
    Panel("Training reward", "reward", "mean per response", "Of the prompts that all algorithms saw alike."),
    Panel(
        "Entropy", "entropy", "nats per token", "Mean surprise at the sampled tokens. Near zero nothing new is tried."
    ),
    Panel("Length of right answers", "length_right", "tokens", "Responses that solved their problem."),
    Panel("Length of wrong answers", "length_wrong", "tokens", "Responses that did not."),
    Panel("Silent groups", "silent_groups", "of all groups", "All responses got one reward: no signal.", "percent"),
    Panel("KL to the old policy", "kl_old", "nats per token", "How far the updates of one step move the policy."),
    Panel("KL to the reference", "kl_ref", "nats per token", "How far training has moved it from the base model."),
    Panel("Clipped below", "clip_low", "of all tokens", "Without gradient, at a ratio under 1.", "percent"),
    Panel("Clipped above", "clip_high", "of all tokens", "Without gradient, at a ratio over 1.", "percent"),
    Panel("Spread of the ratio", "ratio_std", "standard deviation", "Of the ratio that the objective itself uses."),
    Panel("Smallest ratio", "ratio_min", "ratio", "Over all tokens and updates of a step."),
    Panel("Largest ratio", "ratio_max", "ratio", "Over all tokens and updates of a step."),
    Panel("Effective sample", "ess", "of all tokens", "What the ratios' weights leave of the sample.", "percent"),
    Panel(
        "Explained variance", "explained_variance", "of the returns", "Of the critic; 1 is perfect, 0 is a constant."
    ),
    Panel("Gradient norm", "gradient_norm", "before clipping", "Mean over the updates of a step."),
    Panel("Rounds of sampling", "rounds", "per step", "More than one: what was sampled first was discarded."),
    Panel("Sampler's error", "sampler_gap", "nats", "Largest difference of sampler's and trainer's log-probs."),
)
LABELS = {**AXES, "engine_s": "engine time"}
METRICS = ("step", *BUDGETS, *(panel.key for panel in PANELS), "length", "clip_fraction")


@dataclass(frozen=True)
class Figure:
    """A chart with its words."""

    title: str
    note: str
    svg: Markup


class Charts:
    """The charts of one study."""

    def __init__(self, study: Study, look: Mapping[str, Look], ranking: Sequence[str]) -> None:
        """Prepare the charts.

        Args:
            look: of each algorithm; its place in here is its number on the page.
            ranking: algorithms, the best first: where there are too many, those are drawn in colour.
        """
        self.study = study
        self.look = look
        self.number = {name: position for position, name in enumerate(look)}
        self.many = len(look) > LEGIBLE
        self.loud = set(ranking[:LOUD]) if self.many else set(look)
        longest = max(len(run.train.get("step", ())) for run in study.runs)
        self.window = 2 * (longest // (2 * STEPS_PER_WINDOW)) + 1

    def accuracy(self) -> list[Figure]:
        """Return held-out accuracy over every budget."""
        figures = []
        for axis in BUDGETS:
            form: Form = "seconds" if axis == "engine_s" else "count"
            axes = Axes(LABELS[axis], "problems solved", form, "percent", log=axis in LOGARITHMIC)
            curves = {name: self._evaluated(name, axis) for name in self.look}
            lines = self._lines(curves, exact=axis == "updates", seeds=True, log=axis in LOGARITHMIC)
            figures += self._figure(f"Against {LABELS[axis]}", "", lines, axes)
        return figures

    def one_by_one(self) -> list[Figure]:
        """Return a chart of held-out accuracy for each of many algorithms, the others in grey behind it."""
        if not self.many:
            return []
        axes = Axes(LABELS["updates"], "problems solved", "count", "percent")
        curves = {name: self._evaluated(name, "updates") for name in self.look}
        lines = self._lines(curves, exact=True, loud=set(self.look))
        return [
            figure
            for name in self.look
            for figure in self._figure(
                name, "", [line if line.label == name else replace(line, quiet=True) for line in lines], axes, NARROW
            )
        ]

    def diagnostics(self) -> list[Figure]:
        """Return the training metrics over steps; those that no run has are left out."""
        figures = []
        for panel in PANELS:
            curves = {name: [self._trained(run, panel.key) for run in self.study.of(name)] for name in self.look}
            lines = self._lines(curves, exact=False, shaded=SEEDS_FOR_SHADE)
            axes = Axes(AXES["step"], panel.unit, y_form=panel.form)
            figures += self._figure(panel.title, panel.note, lines, axes, NARROW)
        return figures

    def matched(self) -> list[Figure]:
        """Return entropy and length where the algorithms had reached the same training reward."""
        figures = []
        for key, title, unit in (("entropy", "Entropy", "nats per token"), ("length", "Length", "tokens")):
            curves = {name: [self._at_reward(run, key) for run in self.study.of(name)] for name in self.look}
            axes = Axes("training reward, when first reached", unit, "number")
            lines = self._lines(curves, exact=False, shaded=SEEDS_FOR_SHADE)
            figures += self._figure(f"{title} at matched reward", "", lines, axes)
        return figures

    def sensitivity(self, search: Sensitivity) -> list[Figure]:
        """Return the search's accuracy against the values tried, on a logarithmic axis."""
        lines = []
        for row in search.scores:
            means = search.means(row)
            x = np.array(list(means))
            columns = [[getattr(one, end) for one in means.values()] for end in ("mean", "low", "high")]
            mean, low, high = (np.array(column, np.float64) for column in columns)  # None, with one seed: nan
            if min(len(seeds) for seeds in search.scores[row].values()) < SEEDS_FOR_INTERVAL:
                low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
            lines.append(Line(row, self.number[row], x, mean, low, high, self.look[row].marker))
        axes = Axes(search.field, "problems solved", "number", "percent", log=True, ticks=tuple(lines[0].x))
        return list(self._figure(f"Against {search.field}", "Validation accuracy of the search's runs.", lines, axes))

    def _figure(
        self, title: str, note: str, lines: Sequence[Line], axes: Axes, size: tuple[int, int] = WIDE
    ) -> Iterator[Figure]:
        ends = [
            f"{line.label} {shown(round(float(line.mean[np.isfinite(line.mean)][-1]), 3), axes.y_form)}"
            for line in lines
            if not line.thin and not line.quiet and np.isfinite(line.mean).any()
        ]
        told = f"{title}: {axes.y_label} over {axes.x_label}. Last: {', '.join(ends)}"
        svg = chart(lines, axes, told, size)
        if svg is not None:
            yield Figure(title, note, svg)

    def _evaluated(self, name: str, axis: str) -> list[tuple[Array, Array]]:
        """The runs' accuracies over an axis, as far as all of them got; of evaluations at one position the last.

        A failed run stays where it was, as in `rlzoo.stats.scores`: it costs nothing from there on.
        """
        runs = [run for run in self.study.of(name) if run.evaluations]
        going = [run.evaluations[-1][axis] for run in runs if run.state != "failed"]
        end = min(going, default=max((run.evaluations[-1][axis] for run in runs), default=0))
        curves = []
        for run in runs:
            points = {record[axis]: record["accuracy"] for record in run.evaluations if record[axis] < end}
            x, y = (np.array(list(part), np.float64) for part in (points.keys(), points.values()))
            measured = {record[axis]: record["accuracy"] for record in run.evaluations}
            at_end = np.interp(end, list(measured.keys()), list(measured.values()))
            curves.append((np.append(x, end), np.append(y, at_end)))
        return curves

    def _trained(self, run: ReadRun, key: str) -> tuple[Array, Array]:
        if key not in run.train:
            return np.empty(0), np.empty(0)
        known = np.isfinite(run.train[key])
        return run.train["step"][known], smooth(run.train[key], self.window)[known]

    def _at_reward(self, run: ReadRun, key: str) -> tuple[Array, Array]:
        """The metric where the smoothed reward was higher than ever before: from left to right, never back."""
        if not run.train:
            return np.empty(0), np.empty(0)
        reward, metric = smooth(run.train["reward"], self.window), smooth(run.train[key], self.window)
        known = np.isfinite(reward) & np.isfinite(metric)
        reward, metric = reward[known], metric[known]
        highest = np.maximum.accumulate(reward)
        first = np.diff(highest, prepend=-np.inf) > 0
        return reward[first], metric[first]

    def _lines(
        self,
        curves: Mapping[str, list[tuple[Array, Array]]],
        exact: bool,
        loud: set[str] | None = None,
        shaded: int = SEEDS_FOR_INTERVAL,
        seeds: bool = False,
        log: bool = False,
    ) -> list[Line]:
        """Average each algorithm's runs.

        Args:
            exact: at the positions at which they were measured, and mark them.
            loud: algorithms in colour.
            shaded: so many seeds have an interval.
            seeds: draw each seed too, as a thin line, unless there are very many.
            log: at positions for a logarithmic axis.
        """
        seeds = seeds and sum(len(curves.get(name, ())) for name in self.loud) <= MOST_SEEDS_DRAWN
        lines = []
        for name, runs in curves.items():
            runs = [(x, y) for x, y in runs if x.size]
            if not runs:
                continue
            grid = _grid([x for x, _ in runs], exact, log)
            mean, low, high = band(runs, grid)
            quiet = name not in (self.loud if loud is None else loud)
            look = (name, self.number[name])
            if len(runs) < shaded:
                low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
            if not quiet and (1 < len(runs) < SEEDS_FOR_INTERVAL or (seeds and len(runs) > 1)):
                lines += [Line(*look, grid, *band([run], grid), thin=True) for run in runs]
            marker = self.look[name].marker if exact else ""
            lines.append(Line(*look, grid, mean, low, high, marker, quiet))
        return lines


def _grid(xs: Sequence[Array], exact: bool, log: bool = False) -> Array:
    """The positions at which runs are averaged: as far as more than half of them got."""
    ends = sorted(x[-1] for x in xs)
    end = ends[(len(ends) - 1) // 2]
    every = np.unique(np.concatenate(xs))
    every = every[every <= end]
    if (exact and len(every) <= POINTS) or len(every) <= 2:
        return every
    first = every[every > 0][0]
    if log and end > first:
        return (
            np.concatenate([every[:1], np.geomspace(first, end, POINTS)])
            if every[0] < first
            else np.geomspace(first, end, POINTS)
        )
    return np.linspace(every[0], end, POINTS)
