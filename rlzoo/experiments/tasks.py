"""A comparison over several tasks: every objective with every seed on each of them, and one judgement of their mean.

    plan.json         the plan over all tasks: what is run, and how the mean over tasks is judged
    comparison.json   the configuration with all tasks, both written before the first run trains
    summary.json      rows over tasks, verdicts on their mean, every run
    TASK/             the comparison on one task, a whole one: plan, table, verdicts, report, runs

Tasks train one after another, on one base model; the runs of a task train together. The verdicts on single tasks have
the plan's level divided by the number of tasks, so that the chance of a wrong one among them all is at most that level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import validate
from rlzoo.config.plan import Plan
from rlzoo.config.run import RunConfig
from rlzoo.config.task import task_folder
from rlzoo.errors import UserError
from rlzoo.experiments.compare import Comparison, compare, count_look, keep_first, read_comparison
from rlzoo.experiments.folders import COMPARISON, refuse_other_kind
from rlzoo.experiments.plan import Declared, read_plan
from rlzoo.experiments.watch import Watch, unwatched
from rlzoo.model.backbone import Backbone
from rlzoo.stats.intervals import Interval
from rlzoo.stats.over_tasks import Aggregate, aggregates, improvements, primary_over_tasks
from rlzoo.stats.scores import Trace
from rlzoo.stats.sentences import sentences
from rlzoo.stats.verdicts import Judgement
from rlzoo.store.lock import hold_whole
from rlzoo.store.run_folder import SUMMARY, RunFolder
from rlzoo.tasks import Task
from rlzoo.training.launch import OnRecord


@dataclass(frozen=True)
class TaskComparison:
    """What a comparison over tasks ended with, or what has ended of it so far.

    Attributes:
        comparisons: label of a task -> the comparison on it; without those that no run of has begun.
        judgement: verdicts on the mean over tasks; see `rlzoo.stats.over_tasks`.
        declared: the plan over tasks and its history; None in a folder without one.
    """

    folder: Path
    config: CompareConfig
    comparisons: Mapping[str, Comparison]
    judgement: Judgement
    declared: Declared | None

    @property
    def traces(self) -> dict[str, list[Trace]]:
        """Task -> records of its runs that have ended; every task of the plan."""
        return {
            name: self.comparisons[name].traces if name in self.comparisons else [] for name in self.config.by_task()
        }

    @property
    def summaries(self) -> list[dict[str, Any]]:
        """The summaries of all runs that have ended, each with its task."""
        return [{"task": name, **one} for name, of in self.comparisons.items() for one in of.summaries]

    @cached_property
    def rows(self) -> list[Aggregate]:
        """The rows over all tasks, the highest mean first."""
        return aggregates(self.traces)

    @cached_property
    def improvements(self) -> dict[tuple[str, str], Interval]:
        """(a, b) -> probability that a run of a is better than one of b, averaged over tasks."""
        return improvements(self.traces)

    def as_dict(self) -> dict[str, Any]:
        """JSON types: what stands in summary.json."""
        return {
            "rows": [row.as_dict() for row in self.rows],
            "judgement": {**self.judgement.as_dict(), "sentences": sentences(self.judgement)},
            "improvements": [{"a": a, "b": b, **one.as_dict()} for (a, b), one in self.improvements.items()],
            "tasks": {
                name: {"folder": str(one.folder), "judgement": one.judgement.as_dict()}
                for name, one in self.comparisons.items()
            },
            "runs": self.summaries,
        }


def compare_tasks(
    config: CompareConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    watch: Watch = unwatched,
    backbone: Backbone | None = None,
    tasks: Mapping[str, Task] | None = None,
    on_task: Callable[[Comparison], None] = lambda comparison: None,
) -> TaskComparison:
    """Train the runs of a comparison on one task after another, and judge the mean over tasks.

    With `resume`, runs that have ended are left alone, and objectives, seeds and tasks can be added to a folder.

    Args:
        watch: told of the runs of each task in turn.
        backbone: what to train on instead of loading what the configuration names.
        tasks: label -> what to train on instead of loading the task of that label.
        on_task: called with the comparison on each task when it has ended.

    Raises:
        UserError: the configuration names one task only, or as `rlzoo.experiments.compare.compare`.
    """
    if not config.tasks:
        raise UserError("a comparison over tasks needs two tasks or more: --task add:medium,sort:hard")
    folder = Path(folder)
    with hold_whole(folder):
        refuse_other_kind(config, folder)
        if (folder / COMPARISON).exists() and not resume:
            raise UserError(
                f"{folder} already holds a comparison. Continue it, or add objectives, seeds and tasks to it, with "
                "--resume; or name another folder with --out."
            )
        if backbone is None and config.engine.name == "local":  # else the workers load it, or a server has it
            backbone = Backbone.load(config.backbone)
        for name, alone in config.by_task().items():
            made = compare(
                alone,
                folder / task_folder(name),
                resume=resume,
                watch=_declaring(config, folder, watch),
                backbone=backbone,
                task=(tasks or {}).get(name),
                part_of=len(config.tasks),
            )
            on_task(made)
        done = read_tasks(folder)
        count_look(folder, [one.summaries for one in done.comparisons.values()])
        RunFolder(folder).write_json(SUMMARY, done.as_dict())
        return done


def _declaring(config: CompareConfig, folder: Path, watch: Watch) -> Watch:
    """Watch as `watch` does, and write the plan over tasks at the first record of a task's runs."""

    @contextmanager
    def watched(runs: Mapping[str, RunConfig]) -> Iterator[OnRecord]:
        with watch(runs) as on_record:
            yield keep_first(config, Plan.of(config), folder, on_record)

    return watched


def read_tasks(folder: str | Path) -> TaskComparison:
    """Read a comparison over tasks from its folder; of one that still trains, the runs that have ended.

    Raises:
        UserError: the folder holds no comparison over tasks.
    """
    folder = Path(folder)
    if not (folder / COMPARISON).is_file():
        raise UserError(f"{folder} holds no comparison: there is no {COMPARISON} in it")
    config = validate(CompareConfig, RunFolder(folder).read_json(COMPARISON), str(folder / COMPARISON))
    if not config.tasks:
        raise UserError(f"{folder} holds a comparison on one task")
    places = {name: folder / task_folder(name) for name in config.by_task()}
    comparisons = {name: read_comparison(place) for name, place in places.items() if (place / COMPARISON).is_file()}
    traces = {name: comparisons[name].traces if name in comparisons else [] for name in places}
    declared = read_plan(folder)
    judgement = primary_over_tasks(traces, declared.plan if declared else None, declared.look if declared else 1)
    return TaskComparison(folder, config, comparisons, judgement, declared)


def holds_tasks(folder: Path) -> bool:
    """Whether a folder holds a comparison over several tasks."""
    return (folder / COMPARISON).is_file() and bool(RunFolder(folder).read_json(COMPARISON).get("tasks"))
