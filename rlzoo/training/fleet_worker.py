"""What a worker of a cluster does: train runs on one local engine, each from and to a folder that all machines see.

A worker loads model, task and teachers once. It refuses to begin where it would give other numbers than the driver's
machine (versions), or could not keep them (the folder). A run saves every `save_every` steps, alone, and holds the
lease of its folder.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlzoo.config.limits import allow_files, check_runs
from rlzoo.config.run import RunConfig
from rlzoo.engine import describe_model, load_model, model_info, open_engine
from rlzoo.engine.ray_worker import HandedBack
from rlzoo.errors import UserError
from rlzoo.store.lease import Lease, Leased
from rlzoo.store.lock import lease
from rlzoo.store.provenance import commit, version
from rlzoo.tasks import Task, load_task, task_kinds
from rlzoo.training.failure import RunFailed
from rlzoo.training.loop import run_to_end
from rlzoo.training.rollout import check_demonstrations, check_prompts
from rlzoo.training.run import Run, Summary
from rlzoo.training.teacher import Teacher, load_teacher

SAME = ("rlzoo", "torch", "transformers", "peft", "bitsandbytes")
"""Packages whose versions must be the driver's: others give other numbers."""
OURS = ("rlzoo", "objectives", "advantages")
SEEN_WITHIN = 5.0
"""Seconds in which a new file must be seen on another machine."""


@dataclass(frozen=True)
class Job:
    """One run, as it travels to a worker."""

    name: str
    config: RunConfig
    folder: Path


def versions() -> dict[str, str | None]:
    """What must be equal on all machines: versions of packages (without a build's suffix), and our commit."""
    found = {name: version(name) for name in SAME}
    return {name: text and text.partition("+")[0] for name, text in found.items()} | {"commit": commit(_HERE)}


_HERE = Path(__file__).parent


class FleetTrainer:
    """What a worker does: train runs on one local engine. Implements `rlzoo.engine.ray_worker.Trainer`."""

    def __init__(self, configs: Sequence[RunConfig], task: Task | None, proof: tuple[Path, str], runs: int) -> None:
        first = configs[0]
        self.task_config, self.task = first.task, task
        self.backbone, self.settings = first.backbone, first.engine
        self.demonstrates = any("demonstration" in config.objective.needs for config in configs)
        self.longest = max(config.train.max_new_tokens for config in configs)
        self.teacher_configs = list(dict.fromkeys(c.train.teacher for c in configs if c.train.teacher is not None))
        self.proof, self.runs = proof, runs
        self.versions, self.folder, self.paths, self.argv = versions(), os.getcwd(), list(sys.path), list(sys.argv)
        self.modules = sorted(_modules(configs))
        self.stack = AsyncExitStack()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "stack"}

    async def open(self, place: int) -> None:
        """Check this machine against the driver's, load model, task and teachers, and open the engine."""
        try:
            self._check(place)
            await self._load()
        except UserError as error:
            raise UserError(f"the worker on {socket.gethostname()}: {error}") from error

    async def train(self, job: Job, tell: Callable[[dict[str, Any]], None], recalled: Callable[[], bool]) -> Summary:
        """Train one run from its last checkpoint to its end."""
        create = partial(
            _LeasedRun.create, job.config, job.folder, True, job.name, lambda _, record: tell(record), lease
        )
        try:
            run = await asyncio.to_thread(create)  # it may have to wait for the lease of a worker that died
        except Leased as error:  # of one that only seemed to
            raise HandedBack(str(error)) from error
        run.recalled = recalled
        try:
            run.restore()
            if run.summary is not None:
                return run.summary
            run.folder.note_environment(backbone=self.described, worker=f"{socket.gethostname()}, pid {os.getpid()}")
            teacher = self.teachers.get(job.config.train.teacher)
            return await run_to_end(run, self.engine, self.model, self.task, teacher)
        except MemoryError as error:  # of the run's own work; the engine's fails its request
            return await run.fail(RunFailed(f"out of memory: {error}"))
        finally:
            release(run)

    def _check(self, place: int) -> None:
        here = versions()
        for name, theirs in self.versions.items():
            if here[name] != theirs and not (name == "commit" and None in (here[name], theirs)):
                raise UserError(
                    f"{name} is {here[name]} here and {theirs} where it was started: numbers would differ. Install the "
                    "same version on all machines"
                )
        _see(*self.proof, place)
        if Path(self.folder).is_dir():
            os.chdir(self.folder)  # relative paths in settings mean the same here
        sys.argv[:] = self.argv  # environment.json has the command that a person typed
        sys.path += [path for path in self.paths if path not in sys.path]
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise UserError(f"the module {module} cannot be imported ({error}): install it here, too") from error

    async def _load(self) -> None:
        self.task = self.task or load_task(self.task_config)
        if self.demonstrates:
            check_demonstrations(self.task)
        allow_files(self.runs)
        self.stack = AsyncExitStack()
        self.model = load_model(self.backbone)
        info = model_info(self.model, self.settings)
        check_runs(self.settings.fleet or 1, info.adapter_parameters)
        check_prompts(self.model, self.task, self.longest, info.context_length)
        self.described = describe_model(self.model, self.settings)
        self.engine = await self.stack.enter_async_context(open_engine(self.model, self.settings))
        self.teachers = {
            config: await Teacher.open(config, load_teacher(config, self.model), self.engine, self.settings, self.stack)
            for config in self.teacher_configs
        }


class _LeasedRun(Run):
    """A run of a worker: it saves without waiting for others, which are at other steps."""

    recalled: Callable[[], bool]

    async def meet(self) -> None:
        self.meeting += 1
        await self.save()
        if self.recalled():
            raise HandedBack


def release(run: Run) -> None:
    """Give up the lease of a run's folder."""
    assert isinstance(run.folder.lock, Lease)
    run.folder.lock.release()


def _see(path: Path, content: str, place: int) -> None:
    """Raise `UserError` unless this machine sees the driver's file, and may write beside it."""
    until = time.monotonic() + SEEN_WITHIN
    while not path.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    try:
        seen = path.read_text(encoding="ascii")
        beside = path.with_name(f"{path.name}.{place}.{os.getpid()}")
        beside.write_text(content, encoding="ascii")
        beside.unlink()
    except OSError as error:
        seen = error.strerror
    if seen != content:
        raise UserError(
            f"it cannot use the folder {path.parent} of the runs ({seen}). Name a folder with --out that all machines "
            "share (NFS, or a mounted bucket)"
        )


def _modules(configs: Sequence[RunConfig]) -> set[str]:
    """The modules of others that define the runs' task and parts: a worker has to import them, too."""
    kind = task_kinds().get(configs[0].task.name.partition(":")[0])
    classes = [] if kind is None else [kind]
    for config in configs:
        classes += [type(getattr(config.objective, column)) for column in config.objective.columns]
    found = {kind.__module__ for kind in classes} - {"builtins", "__main__"}
    return {module for module in found if module.partition(".")[0] not in OURS}
