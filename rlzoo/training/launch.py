"""Starting runs: folders, resuming, loading, dividing them among processes. `rlzoo.training.loop` trains them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import torch

from rlzoo.config.engine import EngineSettings
from rlzoo.config.limits import allow_files, check_runs
from rlzoo.config.run import RunConfig, TeacherConfig
from rlzoo.engine import check_model, describe_model, load_model, model_info, open_engine
from rlzoo.engine.driver import drive, together
from rlzoo.engine.forked import OnRecord, count_processes, divide_work, share_of, shares_of
from rlzoo.errors import UserError
from rlzoo.tasks import Task, load_task
from rlzoo.training.loop import run_to_end
from rlzoo.training.meetings import go_back_together, has_settled
from rlzoo.training.rollout import check_demonstrations, check_prompts
from rlzoo.training.run import Run, Summary
from rlzoo.training.signal import WARNING
from rlzoo.training.teacher import Teacher, load_teacher


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    on_record: OnRecord | None = None,
    backbone: Any = None,
    task: Task | None = None,
) -> Summary:
    """Train one run into `folder` and return its summary. A single run is a fleet of one."""
    runs = {config.name: (config, folder)}
    return train_fleet(runs, resume=resume, on_record=on_record, backbone=backbone, task=task)[config.name]


def train_fleet(
    runs: dict[str, tuple[RunConfig, str | Path]],
    *,
    resume: bool = False,
    on_record: OnRecord | None = None,
    backbone: Any = None,
    task: Task | None = None,
) -> dict[str, Summary]:
    """Train runs that share task and backbone together; returns name -> summary. See `rlzoo.engine.forked` for where.

    A run that fails stops with `state: "failed"` and the reason in its summary; the other runs continue. A loss or
    gradient that is not finite is a final outcome: resuming does not retry it, because the same numbers would come out.
    After any other failure (its reward raised, its disk was full) the run can be resumed.

    Args:
        runs: name -> configuration and folder.
        resume: take up folders that are there already.
        on_record: called with (name, record) for every record of every run, always in the calling thread, the records
            of one run in their order; an error that it raises ends all runs. See `rlzoo.report.progress`.
        backbone, task: what to train on instead of loading what the configurations name; a teacher is always loaded.

    Raises:
        UserError: folder, model, teacher or task cannot be used, a prompt does not fit the context, or the runs name
            different tasks, backbones or engine settings; a process that trains some of them is ended from outside.
    """
    configs = [config for config, _ in runs.values()]
    first = configs[0]
    for section in ("task", "backbone", "engine"):
        if len({repr(getattr(config, section)) for config in configs}) > 1:
            raise UserError(f"the runs of a fleet share one {section}, but these differ in it: train them one by one")
    for warning in dict.fromkeys(text for config in configs for text in config.warnings):
        warnings.warn(warning, stacklevel=2)
    if first.engine.name == "ray":
        from rlzoo.training.on_ray import train_on_ray  # needs the extra

        if backbone is not None:
            raise UserError("a Ray cluster loads the model on its workers: name it (backbone.model), give no object")
        return train_on_ray(runs, resume=resume, on_record=on_record, task=task)
    task = task or load_task(first.task)
    on_record = _warning_once(on_record)
    if any("demonstration" in config.objective.needs for config in configs):
        check_demonstrations(task)
    allow_files(len(runs))
    made = {name: Run.create(config, folder, resume, name, on_record) for name, (config, folder) in runs.items()}
    model = load_model(first.backbone, first.engine) if backbone is None else backbone
    check_model(model, first.engine, [config.optimizer.max_grad_norm for config in configs])
    info = model_info(model, first.engine)
    check_runs(len(runs), info.adapter_parameters)
    fleet = [run.name for run in made.values() if not has_settled(run)]
    processes = count_processes(first.engine, torch.device(info.device), len(fleet))
    for share in shares_of(fleet, processes):
        go_back_together([made[name] for name in share])
    for run in made.values():
        run.restore()
    unfinished = [run for run in made.values() if run.summary is None]
    named = {run.config.train.teacher for run in unfinished if run.config.train.teacher is not None}
    teachers = {config: load_teacher(config, model) for config in named}
    if unfinished:
        longest = max(config.train.max_new_tokens for config in configs)
        check_prompts(model, task, longest, info.context_length)
    settings = share_of(first.engine, processes)
    for run in unfinished:
        run.folder.note_environment(backbone=describe_model(model, settings))

    def train_some(names: Sequence[str], on_record: OnRecord | None, each_turn: Callable[[], None]) -> dict[str, Any]:
        some = [made[name] for name in names if made[name].summary is None]
        latest = max((run.meeting for run in some), default=0)
        for run in some:
            run.on_record = on_record
            run.meeting = latest  # from here on they meet together, also those that come from elsewhere
        return drive(train_together(some, model, task, settings, teachers, each_turn))

    summaries = {run.name: run.summary for run in made.values() if run.summary is not None}
    if unfinished:
        summaries |= divide_work(fleet, processes, train_some, on_record)
    for name in fleet:
        made[name].settle()
    return {name: summaries[name] for name in runs}


def _warning_once(on_record: OnRecord | None) -> OnRecord:
    """Pass records on, and warn of each cause once: that of one run, in any process, is often that of all."""
    told: set[str] = set()

    def tell(name: str, record: dict[str, Any]) -> None:
        if record["kind"] != WARNING:
            if on_record is not None:
                on_record(name, record)
        elif record["cause"] not in told:
            told.add(record["cause"])
            warnings.warn(record["text"], stacklevel=2)

    return tell


async def train_together(
    runs: Sequence[Run],
    model: Any,
    task: Task,
    settings: EngineSettings,
    teachers: Mapping[TeacherConfig, Any],
    each_turn: Callable[[], None],
) -> dict[str, Summary]:
    """Train runs on one engine in this process; `teachers` are their own models, None for adapters."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(model, settings))
        opened = {config: await Teacher.open(config, own, engine, settings, stack) for config, own in teachers.items()}
        jobs = {run.name: run_to_end(run, engine, model, task, opened.get(run.config.train.teacher)) for run in runs}
        return await together(jobs, each_turn)
