"""The report of a comparison over tasks: the mean over tasks first, then every task with a link to its own report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from markupsafe import Markup

from rlzoo.errors import UserError
from rlzoo.experiments.tasks import TaskComparison, holds_tasks, read_tasks
from rlzoo.report import inline, page
from rlzoo.report.charts import WIDE, Drawn
from rlzoo.report.lines import Frame, Line
from rlzoo.report.palette import looks
from rlzoo.report.results import pairs
from rlzoo.report.tables import Column, Table
from rlzoo.stats.sentences import sentences
from rlzoo.store.run_folder import REPORT


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Make the report of a comparison on one task or over several, or of one run; see `page.write_report`."""
    if not holds_tasks(folder):
        return page.write_report(folder, out)
    return page.write_page(render(read_tasks(folder), (out or folder / REPORT).parent), out or folder / REPORT)


def write_tables(folder: Path, out: Path) -> list[Path]:
    """Write the tables of a report into a folder; see `page.write_tables`."""
    if not holds_tasks(folder):
        return page.write_tables(folder, out)
    made = read_tasks(folder)
    if not made.rows:
        raise UserError(f"no row in {folder} has a run on every task yet: there is nothing to put into tables")
    return page.write_files([rows(made), pairs(made.judgement), improvement(made), by_task(made)], out)


def render(made: TaskComparison, place: Path) -> str:
    """Return the page; links to the tasks' reports are relative to the folder that it will stand in."""
    names = [run.row for run in made.config.runs()]
    look = looks(names)
    reports = {name: one.folder / REPORT for name, one in made.comparisons.items()}
    links = {name: os.path.relpath(path, place) if path.is_file() else None for name, path in reports.items()}
    now = datetime.now(UTC)
    script, allowed = page.script()
    return page.template("tasks.html").render(
        made=made,
        title=f"{len(made.config.tasks)} tasks: {', '.join(dict.fromkeys(names))}",
        when=now.strftime("%Y-%m-%d %H:%M UTC"),
        stamp=now.isoformat(),
        style=Markup(page.style(look)),
        script=Markup(script),
        script_hash=allowed,
        keys=inline.keys(look),
        key=lambda name: inline.key(look[name]),
        look=look,
        verdicts=sentences(made.judgement),
        notes=made.declared.notes if made.declared else [],
        rows=rows(made),
        profile=_profile(made),
        pairs=pairs(made.judgement),
        improvement=improvement(made),
        by_task=by_task(made),
        tasks={name: sentences(one.judgement) for name, one in made.comparisons.items()},
        links=links,
    )


def rows(made: TaskComparison) -> Table:
    """Return one line per row: mean and IQM over tasks, and its mean accuracy on each of them."""
    names = list(made.config.by_task())
    caption = (
        "Held-out accuracy on the seeds that a row has on every task, failed runs included. Mean: over tasks, each "
        "counting alike, with its 95% interval over seeds and problems; verdicts are on it. IQM: mean of the middle "
        "half of all runs of all tasks, with its interval of a stratified bootstrap, which is too narrow for few seeds."
    )
    columns = [
        Column("algorithm", ""),
        Column("mean", "mean over tasks", "percent"),
        Column("iqm", "IQM", "percent"),
        *(Column(f"task {name}", name, "percent") for name in names),
        Column("seeds", "seeds", "text"),
    ]
    cells = [
        {
            "algorithm": one.row,
            "mean": one.mean,
            "iqm": one.iqm,
            "seeds": str(one.seeds),
            **{f"task {name}": one.tasks[name] for name in names},
        }
        for one in made.rows
    ]
    return Table("over_tasks", caption, columns, cells)


def improvement(made: TaskComparison) -> Table:
    """Return P(a > b) over tasks for every two rows."""
    caption = (
        "How often a run of a is ahead of a run of b on a task, averaged over tasks, ties counting half: every run "
        "with every other, with the interval of a stratified bootstrap (Agarwal et al. 2021). No verdict follows."
    )
    columns = (Column("a", "a"), Column("b", "b"), Column("improvement", "P(a > b)", "share"))
    cells = [{"a": a, "b": b, "improvement": one} for (a, b), one in made.improvements.items()]
    return Table("improvement_over_tasks", caption, columns, cells)


def by_task(made: TaskComparison) -> Table:
    """Return the verdict on every pair of every task."""
    caption = (
        f"Verdicts on single tasks. Each task has 1/{len(made.config.tasks)} of the level and Holm's correction for "
        "its pairs, so a wrong better or worse on any task has no larger chance than the plan allows. Intervals agree "
        "with the verdicts."
    )
    columns = (
        Column("task", "task"),
        Column("a", "a"),
        Column("b", "b"),
        Column("verdict", "a is"),
        Column("difference", "difference", "points"),
        Column("p_holm", "p (Holm)", "p"),
    )
    cells = [
        {
            "task": name,
            "a": pair.a,
            "b": pair.b,
            "verdict": pair.told,
            "difference": pair.difference,
            "p_holm": pair.p_holm,
        }
        for name, one in made.comparisons.items()
        for pair in one.judgement.pairs
    ]
    return Table("by_task", caption, columns, cells)


def _profile(made: TaskComparison) -> Drawn | None:
    """Return the performance profiles of all rows in one chart; None before a row has a run on every task."""
    look = looks(run.row for run in made.config.runs())
    lines = []
    for one in made.rows:
        low, high = (_array(side, len(one.profile.share)) for side in (one.profile.low, one.profile.high))
        x, share = _array(one.profile.thresholds, 0), _array(one.profile.share, 0)
        lines.append(Line(one.row, look[one.row], x, share, low, high))
    frame = Frame("held-out accuracy", "runs above it", "percent", "percent")
    svg = inline.chart("Share of runs above an accuracy", lines, frame, "profile", WIDE)
    note = (
        "Share of runs above each accuracy, averaged over tasks; shaded: 95% interval of a stratified bootstrap over "
        "runs. A row whose line is above another's everywhere is better, whichever accuracy one asks for."
    )
    return None if svg is None else Drawn("Performance profile", note, svg)


def _array(values: Sequence[float] | None, size: int) -> np.ndarray:
    return np.full(size, np.nan) if values is None else np.asarray(values, np.float64)
