"""Progress while runs train: a live table in a notebook, the live view in a terminal."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rlzoo.api.notebook import in_notebook
from rlzoo.api.results import html_table
from rlzoo.config.budget import Budget
from rlzoo.config.run import RunConfig
from rlzoo.experiments.watch import Watch, unwatched
from rlzoo.report.console import terminal
from rlzoo.report.progress import Progress, RunProgress
from rlzoo.stats.amounts import clock_time, short_count
from rlzoo.training.launch import OnRecord

EVERY = 1.0
"""Seconds between two updates of a notebook's table."""


def watcher(progress: bool | None) -> Watch:
    """Return the progress display: a table in a notebook, the live view in a terminal, else none.

    Args:
        progress: True: lines of text if there is neither; False: no display.
    """
    if progress is False:
        return unwatched
    if in_notebook():
        return notebook_table
    if progress or sys.stderr.isatty():
        return terminal_view
    return unwatched


def progress_of(runs: Mapping[str, RunConfig]) -> list[RunProgress]:
    """Return the initial progress of each run."""
    return [
        RunProgress(name, run.row, run.seed, run.train.steps, run.evaluation.every, Budget.of(run.train.budget))
        for name, run in runs.items()
    ]


@contextmanager
def terminal_view(runs: Mapping[str, RunConfig]) -> Iterator[OnRecord]:
    """Show the live view on stderr."""
    with Progress(progress_of(runs), terminal(stderr=True)) as view:
        yield view.on_event


@contextmanager
def notebook_table(runs: Mapping[str, RunConfig], clock: Callable[[], float] = time.monotonic) -> Iterator[OnRecord]:
    """Show a table with a line per objective below the cell, and update it as records arrive."""
    shown_in = importlib.import_module("IPython.display")  # not a dependency; every notebook kernel has it
    states = {state.name: state for state in progress_of(runs)}
    started = shown = clock()
    handle = shown_in.display(shown_in.HTML(table_of(states, 0.0)), display_id=True)

    def on_record(name: str, record: Mapping[str, Any]) -> None:
        nonlocal shown
        states[name].update(record)
        if clock() - shown >= EVERY:
            shown = clock()
            handle.update(shown_in.HTML(table_of(states, shown - started)))

    try:
        yield on_record
    finally:
        handle.update(shown_in.HTML(table_of(states, clock() - started)))


def table_of(states: Mapping[str, RunProgress], seconds: float) -> str:
    """Return the table: per objective the ended seeds, steps, mean held-out accuracy and reward, sampled tokens."""
    rows: dict[str, list[RunProgress]] = {}
    for state in states.values():
        rows.setdefault(state.algorithm, []).append(state)
    cells = [
        [
            name,
            f"{sum(run.state in ('done', 'failed') for run in runs)} of {len(runs)}",
            f"{min(run.step for run in runs)} of {max(run.steps for run in runs)}",
            _percent([run.accuracy_before for run in runs]) + " → " + _percent([run.accuracy for run in runs]),
            _mean([run.latest.get("reward") for run in runs], ".3f"),
            short_count(sum(run.latest.get("tokens_sampled", 0) for run in runs)),
        ]
        for name, runs in rows.items()
    ]
    headings = ["", "ended", "step", "held-out", "reward", "sampled tokens"]
    return html_table(headings, cells) + f"<p>{clock_time(seconds)} elapsed</p>"


def _mean(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(sum(known) / len(known), form) if known else ""


def _percent(values: list[float | None]) -> str:
    return _mean(values, ".1%") or "-"
