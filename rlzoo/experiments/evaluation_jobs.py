"""Which policies to evaluate, with the settings of their runs. Only settings are read; no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.config.messages import Model
from rlzoo.config.run import RunConfig, SharedConfig
from rlzoo.config.sources import settings
from rlzoo.errors import UserError
from rlzoo.experiments.folders import run_folders
from rlzoo.store.run_folder import ADAPTER, CONFIG, SUMMARY, RunFolder


@dataclass(frozen=True)
class Job:
    """One policy to evaluate: a run's adapter, or with None the base model."""

    policy: str
    adapter: Path | None
    config: SharedConfig


def evaluation_jobs(
    folders: Sequence[Path],
    *,
    base: bool = False,
    file: Path | None = None,
    task: str | dict[str, Any] | None = None,
    prompts: int | None = None,
    samples: int | None = None,
    greedy: bool = False,
    assignments: Sequence[str] = (),
    trust: bool = False,
) -> list[Job]:
    """Return a job for each run in and below folders: the run's settings, overridden by what is given.

    Args:
        base: evaluate the base model too; without a folder it is evaluated anyway.
        file: settings for the base model where there is no folder.
        task, prompts, samples, greedy, assignments: over the settings of every run; None: as the run has it.
        trust: whether code may run that a run folder's settings name.

    Raises:
        UserError: a folder holds no run, or a setting is unknown or wrong.
    """
    options = {
        "prompts": prompts,
        "final_prompts": prompts,
        "samples": 1 if greedy and samples is None else samples,
        "greedy": greedy or None,
    }
    texts = [f"evaluation.{key}={str(value).lower()}" for key, value in options.items() if value is not None]
    texts += assignments

    def read(model: type[Model], path: Path | None) -> Model:
        return settings(model, path, texts, {"task": task}, trust)

    jobs = [Job(str(one), one / ADAPTER, read(RunConfig, one / CONFIG)) for one in run_folders(folders)]
    for job in jobs:
        refuse_damaged(Path(job.policy))
    if not jobs or base:
        jobs.insert(0, Job("base", None, jobs[0].config if jobs else read(SharedConfig, file)))
    return jobs


def refuse_damaged(run: Path) -> None:
    """Raise `UserError` if a run that has ended no longer has the adapter that it ended with."""
    folder = RunFolder(run)
    summary = folder.read_json(SUMMARY) if (run / SUMMARY).is_file() else {}
    for problem in folder.changed(summary.get("files", {})):
        raise UserError(
            f"{problem}. Put back a copy of it, or train the run again; rlzoo doctor checks all of a folder"
        )
