"""Objectives side by side: every objective with every seed, trained together, and one table at the end.

Same prompts, same noise, same schedule per seed, so the seeds are pairs. A folder of a comparison:

    comparison.json   its configuration
    summary.json      table and verdicts, as data
    OBJECTIVE/seedN/  the run folders

Curves and report of that folder are `rlzoo.report`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.stats.comparisons import judgements
from rlzoo.stats.intervals import Interval, interval, paired
from rlzoo.stats.scores import Trace
from rlzoo.stats.verdicts import Judgement
from rlzoo.store.run_folder import CONFIG, RunFolder, refuse_differences
from rlzoo.tasks import Task
from rlzoo.training.loop import OnRecord, train_fleet

COMPARISON = "comparison.json"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Row:
    """One objective's outcome over its seeds. Accuracies are held-out; tokens and seconds are means per run.

    Attributes:
        before, after, gain: None when no seed finished. `gain` pairs each seed's after with its own before.
        tokens_sampled: everything that was sampled, also what selection discarded.
        engine_s: this algorithm's share of the time in which its runs shared batches with others.
        tuned: the setting that was chosen for this objective, and its value.
        pass_k: the largest k that pass@k was measured for, before and after; None with one response per prompt.
    """

    objective: str
    seeds: int
    failed: int
    before: Interval | None
    after: Interval | None
    gain: Interval | None
    length_before: float | None
    length_after: float | None
    updates: float
    tokens_sampled: float
    tokens_discarded: float
    engine_s: float
    tuned: dict[str, float] | None = None
    pass_k: int | None = None
    pass_before: Interval | None = None
    pass_after: Interval | None = None
    pass_gain: Interval | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {k: v.as_dict() if isinstance(v, Interval) else v for k, v in self.__dict__.items()}


@dataclass(frozen=True)
class Comparison:
    """What a comparison ended with."""

    folder: Path
    rows: list[Row]
    summaries: list[dict[str, Any]]
    elapsed_s: float
    judgements: dict[str, Judgement]
    """Verdicts by final accuracy, by area and at equal budgets; see `rlzoo.stats.comparisons`."""
    tune: dict[str, Any] | None = None
    """The search for settings that went before, as JSON types; see `rlzoo.experiments.tune`."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types: what stands in summary.json."""
        return {
            "elapsed_s": self.elapsed_s,
            "rows": [row.as_dict() for row in self.rows],
            "judgement": {key: judgement.as_dict() for key, judgement in self.judgements.items()},
            **({} if self.tune is None else {"tune": self.tune}),
            "runs": self.summaries,
        }


def compare(
    config: CompareConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    on_record: OnRecord | None = None,
    backbone: Backbone | None = None,
    task: Task | None = None,
    tune: dict[str, Any] | None = None,
) -> Comparison:
    """Train all runs of a comparison together and summarize them.

    With `resume`, runs that have ended are left alone, so objectives and seeds can be added to a folder. The table has
    the objectives and seeds of `config`; every run in the folder has its settings.

    Args:
        tune: the search that `config.tuned` is from, to be kept in summary.json; see `rlzoo.experiments.tune`.

    Raises:
        UserError: values are to be tuned and are not yet; the folder is in use, holds runs of other settings, or cannot
            be written; see `rlzoo.store.run_folder`.
    """
    folder = Path(folder)
    if config.tune.values and not config.tuned:
        raise UserError("tune.values: rlzoo compare alone searches first; here give tuned, or leave tune.values out")
    refuse_taken(config, folder, resume)
    runs = {run.name: (run, folder / run.name) for run in config.runs()}
    trained = train_fleet(runs, resume=resume, on_record=on_record, backbone=backbone, task=task)
    return summarize(config, folder, list(trained.values()), tune)


def refuse_taken(config: CompareConfig, folder: Path, resume: bool) -> None:
    """Raise UserError if a folder holds a comparison that is not to be resumed, or runs of other settings."""
    if (folder / COMPARISON).exists() and not resume:
        raise UserError(
            f"{folder} already holds a comparison. Continue it, or add objectives and seeds to it, with --resume; or "
            "name another folder with --out."
        )
    for run in (RunFolder(path.parent) for path in sorted(folder.glob(f"*/*/{CONFIG}"))):
        if run.began:
            refuse_differences(run.path, config.shared_part(run.read_json(CONFIG)), config.shared())


def summarize(
    config: CompareConfig, folder: Path, summaries: list[dict[str, Any]], tune: dict[str, Any] | None = None
) -> Comparison:
    """Write table and verdicts of runs that have ended."""
    objectives = {run.row: run.objective.name for run in config.runs()}
    rows = [summary_row(name, [s for s in summaries if s["objective"] == name]) for name in objectives]
    if config.tuned:
        rows = [replace(row, tuned={config.tune.field: config.tuned[objectives[row.objective]]}) for row in rows]
    elapsed = max(summary["elapsed_s"] for summary in summaries)
    traces = [
        Trace(s["objective"], s["seed"], RunFolder.open(folder / s["name"]).read_metrics(), s["state"] == "failed")
        for s in summaries
    ]
    comparison = Comparison(folder, rows, summaries, elapsed, judgements(traces, config.margin), tune)
    RunFolder(folder).write_json(COMPARISON, config.model_dump(mode="json"))
    RunFolder(folder).write_json(SUMMARY, comparison.as_dict())
    return comparison


def summary_row(objective: str, summaries: list[dict[str, Any]]) -> Row:
    """Summarize one objective's runs: intervals over the seeds that finished, costs over all."""
    done = [s for s in summaries if s["state"] == "done"]
    before = {s["seed"]: s["before"]["accuracy"] for s in done}
    after = {s["seed"]: s["after"]["accuracy"] for s in done}

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return Row(
        objective=objective,
        seeds=len(summaries),
        failed=len(summaries) - len(done),
        before=interval(list(before.values())) if done else None,
        after=interval(list(after.values())) if done else None,
        gain=paired(after, before) if done else None,
        length_before=mean([s["before"]["length"] for s in done]),
        length_after=mean([s["after"]["length"] for s in done]),
        **{
            key: mean([s[key] for s in summaries]) or 0.0
            for key in ("updates", "tokens_sampled", "tokens_discarded", "engine_s")
        },
        **_pass_at_k(done),
    )


def _pass_at_k(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize pass@k at the largest k that the runs were measured for before and after; nothing if for none."""
    ks = [int(key.removeprefix("pass@")) for s in done for key in s["after"] if key.startswith("pass@")]
    if not ks:
        return {}
    before, after = ({s["seed"]: s[end][f"pass@{max(ks)}"] for s in done} for end in ("before", "after"))
    return {
        "pass_k": max(ks),
        "pass_before": interval(list(before.values())),
        "pass_after": interval(list(after.values())),
        "pass_gain": paired(after, before),
    }
