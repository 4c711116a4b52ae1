"""A comparison on one task: every objective with every seed, trained together, then one table and the verdicts.

Runs with the same seed share prompts, noise and schedule, so they are pairs. The folder of a comparison:

    plan.json         what is run and how it is judged, from the beginning
    comparison.json   its configuration, from the beginning
    summary.json      table and verdicts, as data
    OBJECTIVE/seedN/  the run folders
    tune/             the run folders of a search before it, if there was one

`rlzoo.report` adds curves and report, `rlzoo.experiments.tasks` makes comparisons over several tasks of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import validate
from rlzoo.config.plan import Plan
from rlzoo.errors import UserError
from rlzoo.experiments.folders import COMPARISON, refuse_taken
from rlzoo.experiments.plan import Declared, declare, judged, read_plan
from rlzoo.experiments.rows import Row, summary_row
from rlzoo.experiments.tune import Search, search
from rlzoo.experiments.watch import Watch, unwatched
from rlzoo.model.backbone import Backbone
from rlzoo.stats.comparisons import primary
from rlzoo.stats.scores import Trace
from rlzoo.stats.sentences import sentences
from rlzoo.stats.verdicts import Judgement
from rlzoo.store.files import inside
from rlzoo.store.lock import hold_whole
from rlzoo.store.run_folder import SUMMARY, RunFolder
from rlzoo.tasks import Task, load_task
from rlzoo.training.launch import OnRecord, train_fleet


@dataclass(frozen=True)
class Comparison:
    """A comparison: all of it, or the runs that have ended so far."""

    folder: Path
    config: CompareConfig
    rows: list[Row]
    summaries: list[dict[str, Any]]
    elapsed_s: float
    judgement: Judgement
    """Verdicts on the plan's endpoint; see `rlzoo.stats.comparisons`."""
    declared: Declared | None
    """The plan and its history; None in a folder without one."""
    traces: list[Trace]
    """Records of the runs that have ended, for scores of every kind."""
    tune: dict[str, Any] | None = None
    """The search for settings that went before, as JSON types; see `rlzoo.experiments.tune`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of summary.json as JSON types."""
        return {
            "elapsed_s": self.elapsed_s,
            "rows": [row.as_dict() for row in self.rows],
            "judgement": {**self.judgement.as_dict(), "sentences": sentences(self.judgement)},
            **({} if self.tune is None else {"tune": self.tune}),
            "runs": self.summaries,
        }


def compare(
    config: CompareConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    watch: Watch = unwatched,
    backbone: Backbone | None = None,
    task: Task | None = None,
    contrasts: Sequence[Mapping[str, Any]] = (),
    part_of: int = 1,
) -> Comparison:
    """Train all runs of a comparison on one task together and summarize them.

    With values to tune, a search comes first, and the runs use each objective's best value. With `resume`, runs that
    have ended are left alone, so objectives and seeds can be added to a folder. The table has the objectives and seeds
    of `config`; all runs in the folder must have its other settings.

    Args:
        backbone, task: what to train on instead of loading what the configuration names.
        contrasts: of an ablation, each with a label and weights: they are judged in the place of pairs.
        part_of: number of tasks of the comparison over tasks that this is one of (`rlzoo.experiments.tasks`).

    Raises:
        UserError: the folder is in use, holds runs of other settings, or cannot be written; see
            `rlzoo.store.run_folder` and `rlzoo.training.launch.train_fleet`.
    """
    folder = Path(folder)
    elsewhere = config.engine.name == "ray"
    with hold_whole(folder, shared=elsewhere):  # two comparisons at once would each write their own table
        refuse_taken(config, folder, resume)
        found: Search | None = None
        if config.tune.values and not config.tuned:
            if config.engine.name == "local":  # else the workers load both, or a server has the model
                task, backbone = task or load_task(config.task), backbone or Backbone.load(config.backbone)
            found = search(config, folder, resume=resume, watch=watch, backbone=backbone, task=task)
            config = config.model_copy(update={"tuned": found.chosen})
        runs = {run.name: run for run in config.runs()}
        with watch(runs) as on_record:
            summaries = train_fleet(
                {name: (run, inside(folder, name)) for name, run in runs.items()},
                resume=resume,
                on_record=keep_first(config, Plan.of(config, contrasts, part_of), folder, on_record),
                backbone=backbone,
                task=task,
            )
        count_look(folder, [list(summaries.values())])
        comparison = summarize(config, folder, list(summaries.values()), found.as_dict() if found else None)
        RunFolder(folder).write_json(SUMMARY, comparison.as_dict())
        return comparison


def count_look(folder: Path, summaries: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Record that a plan is judged now, if it is complete: a later version of it has a smaller level.

    Args:
        summaries: of each task, those of its runs.
    """
    declared = read_plan(folder)
    ended = [[(s["objective"], s["seed"]) for s in of if s["ended"] != "error"] for of in summaries]
    if declared is not None and not any(declared.plan.missing(of) for of in ended):
        judged(folder, declared)


def keep_first(config: CompareConfig, plan: Plan, folder: Path, on_record: OnRecord | None) -> OnRecord:
    """Write configuration and plan at the first record: the runs have folders then, and none has trained."""
    kept = False

    def tell(name: str, record: dict[str, Any]) -> None:
        nonlocal kept
        if not kept:
            RunFolder(folder).write_json(COMPARISON, config.model_dump(mode="json"))
            declare(folder, plan)
            kept = True
        if on_record is not None:
            on_record(name, record)

    return tell


def read_comparison(folder: str | Path) -> Comparison:
    """Read a comparison from its folder; of one that still trains, or was interrupted, the runs that have ended.

    Raises:
        UserError: the folder holds no comparison.
    """
    folder = Path(folder)
    if not (folder / COMPARISON).is_file():
        raise UserError(f"{folder} holds no comparison: there is no {COMPARISON} in it")
    config = validate(CompareConfig, RunFolder(folder).read_json(COMPARISON), str(folder / COMPARISON))
    if config.tasks:
        raise UserError(f"{folder} holds a comparison over {len(config.tasks)} tasks: name the folder of one in it")
    ended = [folder / run.name / SUMMARY for run in config.runs()]
    summaries = [RunFolder(path.parent).read_json(SUMMARY) for path in ended if path.is_file()]
    stored = RunFolder(folder).read_json(SUMMARY) if (folder / SUMMARY).is_file() else {}
    return summarize(config, folder, summaries, stored.get("tune"))


def summarize(
    config: CompareConfig, folder: Path, summaries: Sequence[dict[str, Any]], tune: dict[str, Any] | None = None
) -> Comparison:
    """Make table and verdicts from the summaries and records of runs that have ended."""
    objectives = {run.row: run.objective.name for run in config.runs()}
    traces = [
        Trace(
            s["objective"],
            s["seed"],
            RunFolder.open(folder / s["name"]).read_metrics(),
            s["state"] == "failed",
            s["ended"],
        )
        for s in summaries
        if s["ended"] != "error"  # a reward that raised, a full disk: to be resumed
    ]
    rows = [
        summary_row(name, [s for s in summaries if s["objective"] == name], [t for t in traces if t.algorithm == name])
        for name in objectives
    ]
    if config.tuned:
        rows = [replace(row, tuned={config.tune.field: config.tuned[objectives[row.objective]]}) for row in rows]
    declared = read_plan(folder)
    return Comparison(
        folder=folder,
        config=config,
        rows=rows,
        summaries=list(summaries),
        elapsed_s=max((summary["elapsed_s"] for summary in summaries), default=0.0),
        judgement=primary(traces, declared.plan if declared else None, declared.look if declared else 1),
        declared=declared,
        traces=traces,
        tune=tune,
    )
