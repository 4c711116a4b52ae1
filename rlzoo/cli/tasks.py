"""`rlzoo compare` over several tasks, in the terminal: rows over tasks, the verdict on their mean, and every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from rlzoo.api import reported
from rlzoo.cli import live
from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.report import plus_minus
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.experiments.tasks import TaskComparison
from rlzoo.report.notes import controls, failures, misfits, unspent
from rlzoo.report.palette import looks
from rlzoo.stats.sentences import sentences
from rlzoo.store.run_folder import REPORT


def compare_tasks(config: CompareConfig, folder: Path, resume: bool, as_json: bool) -> list[str]:
    """Run a comparison over tasks, print what came out, and return the runs that failed, in words."""
    made = reported.compare_tasks(config, folder, resume=resume, watch=partial(_watched, folder=folder))
    if as_json:
        print_json({"folder": str(folder), **made.as_dict()})
    else:
        console = terminal()
        console.print(rows_table(made))
        live.print_verdicts(console, [made.judgement.scope, *sentences(made.judgement)])
        for name, one in made.comparisons.items():
            console.print(Text(f"\n{name}", style="bold"))
            for sentence in sentences(one.judgement):
                console.print(Text(sentence))
        live.print_notes(console, notes(made))
    return failures(made.summaries)


@contextmanager
def _watched(runs: Mapping[str, RunConfig], folder: Path) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Name the task, then show the live table of its runs."""
    live.err.print(Text(next(iter(runs.values())).task.label, style="bold"))
    with live.watched(runs, folder) as on_record:
        yield on_record


def rows_table(made: TaskComparison) -> Table:
    """Return one line per row: mean and IQM over tasks, and the mean accuracy on each task, in percent."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")
    for heading in ("mean\n%", "IQM\n%", *(f"{name}\n%" for name in made.config.by_task())):
        table.add_column(heading, justify="right", no_wrap=True)
    ink = {name: look.ink for name, look in looks(row.row for row in made.rows).items()}
    for row in made.rows:
        table.add_row(Text(row.row, style=ink[row.row]), *map(plus_minus, (row.mean, row.iqm, *row.tasks.values())))
    return table


def notes(made: TaskComparison) -> list[str]:
    """Return what a reader should know of the table, the runs and the folder."""
    explained = (
        "Mean over tasks, each counting alike, ± 95% interval over seeds and problems; IQM: mean of the middle half of "
        "all runs, with the interval of a stratified bootstrap. Single tasks share the level of the plan."
    )
    summaries = made.summaries
    told = [*misfits(summaries), *controls(summaries), *unspent(summaries), *failures(summaries)]
    there = f"Report: {made.folder / REPORT}; that of each task is in its folder"
    return [explained, *(made.declared.notes if made.declared else []), *told, there]
