"""Runs of a fleet on the workers of a Ray cluster: what the driver checks and waits for.

The driver loads no model. It checks the folders, has workers open (each loads model and task, and proves that it has
the driver's version and sees its folder), and gives them runs out of a queue (`rlzoo.engine.ray_queue`). What a worker
does with them: `rlzoo.training.fleet_worker`.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlzoo.config.run import RunConfig
from rlzoo.engine.driver import drive
from rlzoo.engine.ray_cluster import Needs, connected, count_workers
from rlzoo.engine.ray_queue import OnRecord, work_off
from rlzoo.errors import UserError
from rlzoo.store.differences import names_in
from rlzoo.store.files import make_folder
from rlzoo.store.lock import lease
from rlzoo.store.run_folder import CONFIG, RunFolder
from rlzoo.tasks import Task
from rlzoo.training.failure import RunFailed
from rlzoo.training.fleet_worker import FleetTrainer, Job, release
from rlzoo.training.run import Run, Summary


def train_on_ray(
    runs: Mapping[str, tuple[RunConfig, str | Path]],
    *,
    resume: bool,
    on_record: OnRecord | None,
    task: Task | None,
) -> dict[str, Summary]:
    """Train runs on a cluster; see `rlzoo.training.launch.train_fleet`.

    Raises:
        UserError: also if the cluster cannot be reached or has no room, or a worker has another version than this
            process or does not see the folders.
    """
    made = {
        name: Run(config, RunFolder(Path(path).resolve()), name, on_record) for name, (config, path) in runs.items()
    }
    for run in made.values():
        if run.folder.path.is_dir():
            names_in(run.folder.path, CONFIG)
            run.folder.refuse_taken(run.config.stored(), resume)
    for run in made.values():
        saved = run.folder.read_state()
        if saved is not None and saved["state"] is not None and saved["state"]["summary"] is not None:
            run.restore()
    jobs = {name: Job(name, run.config, run.folder.path) for name, run in made.items() if run.summary is None}
    if jobs:
        outcomes = _train(jobs, on_record, task)
        for name in jobs:
            made[name].summary = outcomes[name]
            made[name].settle()
    return {name: run.summary for name, run in made.items() if run.summary is not None}


def _train(jobs: Mapping[str, Job], on_record: OnRecord | None, task: Task | None) -> dict[str, Summary]:
    configs = [job.config for job in jobs.values()]
    settings = configs[0].engine
    root = Path(os.path.commonpath([job.folder for job in jobs.values()]))

    def give_up(name: str, reason: str) -> Summary:
        run = Run.create(jobs[name].config, jobs[name].folder, True, name, None, lease)
        run.restore()
        run.on_record = on_record
        summary = drive(run.fail(RunFailed(reason)))
        release(run)
        return summary

    with connected(settings.url), _proof(root) as proof:
        needs = Needs.of(settings, configs[0].backbone.device)
        workers = count_workers(settings, needs, len(jobs))
        trainer = FleetTrainer(configs, task, proof, len(jobs))
        return work_off(jobs, trainer, needs, workers, settings.fleet, on_record or _ignore, give_up)


def _ignore(name: str, record: dict[str, Any]) -> None:
    """Nobody listens."""


@contextmanager
def _proof(root: Path) -> Iterator[tuple[Path, str]]:
    """Within: a file in the folder of the runs whose content a worker can know only if it sees the same folder."""
    path, content = make_folder(root) / f".storage-{uuid.uuid4().hex}", uuid.uuid4().hex
    try:
        path.write_text(content, encoding="ascii")
    except OSError as error:
        raise UserError(f"could not write into {root}: {error.strerror}. Name another folder with --out.") from error
    try:
        yield path, content
    finally:
        path.unlink(missing_ok=True)
