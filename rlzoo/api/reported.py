"""Training with reports: a live report while runs train, and the full one at the end.

If a report cannot be written, a warning is issued; no run is ended or lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.config.task import task_folder
from rlzoo.errors import UserError
from rlzoo.experiments import ablate as ablation
from rlzoo.experiments import compare as comparison
from rlzoo.experiments import tasks as over_tasks
from rlzoo.experiments.watch import Watch, unwatched
from rlzoo.report import page, tasks
from rlzoo.report.live import LiveReport
from rlzoo.training import launch
from rlzoo.training.launch import OnRecord


def compare(
    config: CompareConfig, folder: str | Path, *, watch: Watch = unwatched, **options: Any
) -> comparison.Comparison:
    """Run `rlzoo.experiments.compare.compare` with a live report. `options`: its other arguments."""
    result = comparison.compare(config, folder, watch=_reporting(Path(folder), watch), **options)
    _safely(page.write_report, result.folder)
    return result


def compare_tasks(
    config: CompareConfig, folder: str | Path, *, watch: Watch = unwatched, **options: Any
) -> over_tasks.TaskComparison:
    """Run `rlzoo.experiments.tasks.compare_tasks` with reports per task and over tasks. `options`: the others."""
    folder = Path(folder)

    def write(one: comparison.Comparison) -> None:
        _safely(page.write_report, one.folder)
        _safely(tasks.write_report, folder)

    result = over_tasks.compare_tasks(config, folder, watch=_reporting(folder, watch, True), on_task=write, **options)
    tasks.write_report(folder)
    return result


def ablate(
    plan: ablation.Plan, config: CompareConfig, folder: str | Path, *, watch: Watch = unwatched, **options: Any
) -> ablation.Ablation:
    """Run `rlzoo.experiments.ablate.ablate` with a live report. `options`: its other arguments."""
    result = ablation.ablate(plan, config, Path(folder), watch=_reporting(Path(folder), watch), **options)
    _safely(page.write_report, Path(folder))
    return result


def train(config: RunConfig, folder: str | Path, *, watch: Watch = unwatched, **options: Any) -> dict[str, Any]:
    """Run `rlzoo.training.launch.train`. A single run gets no report; `rlzoo report` writes one."""
    with watch({config.name: config}) as on_record:
        return launch.train(config, folder, on_record=on_record, **options)


def _reporting(folder: Path, watch: Watch, by_task: bool = False) -> Watch:
    """Return a watch that also writes the live report: of a folder, or with `by_task` of the runs' task in it."""

    @contextmanager
    def watched(runs: Mapping[str, RunConfig]) -> Iterator[OnRecord]:
        label = next(iter(runs.values())).task.label
        with watch(runs) as on_record:
            yield LiveReport(folder / task_folder(label) if by_task else folder, on_record)

    return watched


def _safely(write: Callable[[Path], object], folder: Path) -> None:
    """Write a report; warn if that fails. The runs and their summary are already on disk."""
    try:
        write(folder)
    except UserError as error:
        warnings.warn(str(error), stacklevel=3)
