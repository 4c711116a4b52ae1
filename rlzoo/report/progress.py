"""Progress of runs: a live table and a bar in a terminal, a plain line every few seconds elsewhere.

The input are the records that also go to metrics.jsonl, `on_event(run, record)`:

    {"kind": "start", "step", "steps"}      {"kind": "train", "step", "reward", "length", "entropy", "tokens_sampled"}
    {"kind": "eval", "accuracy"}            {"kind": "end", "state": "done" | "failed"}
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlzoo.config.budget import Budget
from rlzoo.report.palette import looks
from rlzoo.stats.amounts import clock_time, short_count

FINAL = ("done", "failed")
SHOWN = ("reward", "length", "entropy", "tokens_sampled")
LINES_AROUND_TABLE = 6  # of the terminal: heading, rules, bar, prompt


@dataclass
class RunProgress:
    """How far one run is, from its records."""

    name: str
    algorithm: str
    seed: int
    steps: int  # expected number; a budget may end the run earlier
    evaluate_every: int = 0  # steps between held-out evaluations; 0: unknown
    budget: Budget | None = None
    most: int = 0  # largest number of steps
    step: int = 0
    first_step: int = 0  # where this session resumed the run: earlier steps took none of its time
    state: str = "waiting"
    latest: dict[str, float] = field(default_factory=dict)
    accuracy_before: float | None = None
    accuracy: float | None = None
    evaluations: int = 0

    def update(self, record: Mapping[str, Any]) -> None:
        """Take in one record."""
        kind = record["kind"]
        self.step = record["step"]
        if kind == "start":
            self.first_step, self.steps, self.most = self.step, record["steps"], record["steps"]
            self.state = self.next_state()
        elif kind == "train":
            if self.budget is not None and (share := self.budget.share(record)) > 0:
                self.steps = max(self.step, min(self.most, math.ceil(self.step / share)))
            self.state = self.next_state()
            self.latest = {key: value for key in SHOWN if (value := record.get(key)) is not None}
        elif kind == "eval":
            self.state = "training"
            self.accuracy = record["accuracy"]
            self.evaluations += 1
            self.accuracy_before = self.accuracy if self.accuracy_before is None else self.accuracy_before
        elif kind == "end":
            self.state = record["state"]

    def next_state(self) -> str:
        """Return what the run does after this step: evaluations are at the first, the last and every n-th step."""
        due = self.step in (0, self.steps) or (self.evaluate_every and self.step % self.evaluate_every == 0)
        return "evaluating" if due else "training"


class Progress:
    """The live view of a set of runs; a context manager."""

    def __init__(
        self,
        runs: Sequence[RunProgress],
        console: Console,
        seconds_between_lines: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show `runs`, in this order, on `console`.

        Args:
            seconds_between_lines: how often to print where there is no terminal to redraw.
            clock: seconds, from anywhere.
        """
        self.runs = {run.name: run for run in runs}
        self.algorithms = list(dict.fromkeys(run.algorithm for run in runs))
        self.console = console
        self.seconds_between_lines = seconds_between_lines
        self.clock = clock
        self.started = self.last_line = clock()
        self.loading = console.status("loading the base model") if console.is_terminal else None
        self.live: Live | None = None
        self.begun = self.ended = False

    def __enter__(self) -> Self:
        self.started = self.last_line = self.clock()
        if self.loading:
            self.loading.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        if self.loading:
            self.loading.stop()
        if self.live:
            self.live.stop()
        elif self.begun:
            self.print_line()

    def on_event(self, run: str, record: Mapping[str, Any]) -> None:
        """Take in a record of a run, and print a line if there is no terminal and it is time for one."""
        self.runs[run].update(record)
        if not self.begun:
            self.begin()
        if not self.live and self.clock() - self.last_line >= self.seconds_between_lines:
            self.last_line = self.clock()
            self.print_line()

    def begin(self) -> None:
        """Start the display at the first record: the model is loaded and the settings are valid."""
        self.begun = True
        if self.loading:
            self.loading.stop()
            self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=1)
            self.live.start()
        else:
            self.print_plain(self.heading())

    def heading(self) -> str:
        """Return one line that names the runs."""
        one = next(iter(self.runs.values()))
        seeds = len({run.seed for run in self.runs.values()})
        every = f", evaluated every {one.evaluate_every}" if one.evaluate_every else ""
        count = f"{seeds} seeds each, " if seeds > 1 else ""
        length = f"{one.steps} steps" if one.budget is None else f"{one.budget}, at most {one.most} steps"
        return f"training {', '.join(self.algorithms)}: {count}{length}{every}"

    def print_line(self) -> None:
        """Print the state of everything in one line."""
        self.print_plain(self.line())

    def print_plain(self, line: str) -> None:
        """Print a line without markup: the brackets of an ablation's name are text."""
        self.console.print(Text(line), soft_wrap=True)

    @property
    def fraction(self) -> float:
        """Share of all steps that are done; a failed run counts as done."""
        done = sum(run.steps if run.state in FINAL else run.step for run in self.runs.values())
        return done / max(1, sum(run.steps for run in self.runs.values()))

    @property
    def seconds_left(self) -> float | None:
        """Estimate from this session's speed; None before its first step."""
        done = sum(max(run.step - run.first_step, 0) for run in self.runs.values())
        left = sum(run.steps - run.step for run in self.runs.values() if run.state not in FINAL)
        return (self.clock() - self.started) * left / done if done else None

    def _all_final(self) -> bool:
        return all(run.state in FINAL for run in self.runs.values())

    def line(self) -> str:
        """Return the state of everything in one line of text."""
        groups = []
        for algorithm in self.algorithms:
            rows = [run for run in self.runs.values() if run.algorithm == algorithm]
            accuracy, reward = _mean(run.accuracy for run in rows), _mean(run.latest.get("reward") for run in rows)
            failed = sum(run.state == "failed" for run in rows)
            number = (
                f"{accuracy:.1%}" if accuracy is not None else f"reward {reward:.2f}" if reward is not None else "-"
            )
            groups.append(f"{algorithm} {number}" + (f" ({failed} failed)" if failed else ""))
        return f"{self.fraction:4.0%}  {self._times()}  held-out: " + ", ".join(groups)

    def render(self) -> RenderableType:
        """Return the table of runs (of algorithms, where the runs would not fit the screen) and the bar."""
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(width=4, justify="right")
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(f"{self.fraction:.0%}", ProgressBar(total=1.0, completed=self.fraction), self._times())
        return Group(self._table(), bar)

    def _table(self) -> Table:
        fits = len(self.runs) + LINES_AROUND_TABLE <= self.console.height
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column("algorithm", no_wrap=True)
        for heading in ("seed" if fits else "seeds", "step", "reward", "held-out", "length", "entropy", "tokens"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for algorithm, look in looks(self.algorithms).items():
            runs = [run for run in self.runs.values() if run.algorithm == algorithm]
            for rows in [[run] for run in runs] if fits else [runs]:
                label = str(rows[0].seed) if fits else str(len(rows))
                table.add_row(Text(algorithm, style=look.ink), label, *_cells(rows))
        return table

    def _times(self) -> str:
        left = self.seconds_left
        if self.fraction == 1:
            remaining = "done" if self.ended else "writing the report" if self._all_final() else "last evaluation"
        else:
            remaining = "estimating" if left is None else f"{clock_time(left)} left"
        return f"{clock_time(self.clock() - self.started)} elapsed, {remaining}"


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _cells(runs: Sequence[RunProgress]) -> list[RenderableType]:
    def shown(key: str, form: str) -> str:
        mean = _mean(run.latest.get(key) for run in runs)
        return "" if mean is None else format(mean, form)

    tokens = _mean(run.latest.get("tokens_sampled") for run in runs)
    before, now = _mean(run.accuracy_before for run in runs), _mean(run.accuracy for run in runs)
    heldout = "" if before is None or now is None else f"{before:.0%} → {now:.0%}"
    if all(run.evaluations < 2 for run in runs):
        heldout = heldout.partition(" ")[0]
    step = min(run.step for run in runs)
    return [
        f"{step}/{max(run.steps for run in runs)}",
        shown("reward", ".3f"),
        heldout,
        shown("length", ".1f"),
        shown("entropy", ".3f"),
        "" if tokens is None else short_count(tokens),
        _state(runs),
    ]


def _state(runs: Sequence[RunProgress]) -> Text:
    failed = sum(run.state == "failed" for run in runs)
    if failed:
        return Text("failed" if len(runs) == 1 else f"{failed} of {len(runs)} failed", style="bold red")
    states = {run.state for run in runs}
    state = states.pop() if len(states) == 1 else "training"
    return Text(state, style="green" if state == "done" else "dim")
