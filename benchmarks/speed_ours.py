"""This project's side of the speed benchmark: `train_fleet` as a user calls it, timed by the records that it emits."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.speed_gains import plain
from benchmarks.speed_memory import PeakMemory, wait_for
from benchmarks.speed_work import NEVER, OPTIMIZER, Measured, Work
from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import EvaluationSettings, RunConfig, TrainSettings
from rlzoo.config.task import TaskConfig
from rlzoo.model import profiler
from rlzoo.model.backbone import Backbone
from rlzoo.model.profiler import StageClock
from rlzoo.tasks import Task
from rlzoo.training.launch import train_fleet
from rlzoo.training.run import Run

COUNTS = ("tokens_sampled", "tokens_trained", "updates")
MADE = "made_s"  # key of a record
SELDOM = 10**9  # steps: never during a measurement


class Measuring:
    """Receives every record; measures from the end of the first run's warm-up to the end of the last run's last step.

    Parallel processes may be at different steps. The remaining warm-up of slower ones then counts as timed, so that all
    work on timed steps is included.
    """

    def __init__(self, work: Work, memory: PeakMemory | None = None, clock: StageClock | None = None) -> None:
        self.work, self.memory, self.clock = work, memory, clock
        self.marks = (work.warmup, work.warmup + work.steps)
        self.records: dict[int, list[dict[str, Any]]] = {mark: [] for mark in self.marks}
        self.read: list[dict[str, float]] = []

    def __call__(self, name: str, record: dict[str, Any]) -> None:
        if record["kind"] != "train" or record["step"] not in self.marks:
            return
        reached = self.records[record["step"]]
        reached.append(record)
        first, last = len(reached) == 1, len(reached) == self.work.runs
        begins, ends = first and record["step"] == self.marks[0], last and record["step"] == self.marks[-1]
        if self.clock is not None and (begins or ends):
            self.read.append(self.clock.read())
        if self.memory is not None and (first or ends):  # at the end, some processes may have exited
            self.memory.look()
        if ends:
            raise Ended

    @property
    def seconds(self) -> float:
        """Seconds between the first and the last mark."""
        begin, end = ([record[MADE] for record in self.records[mark]] for mark in self.marks)
        return max(end) - min(begin)

    def count(self, key: str) -> int:
        """Return the increase of a counter over the timed steps, summed over runs."""
        before, after = (sum(record[key] for record in self.records[mark]) for mark in self.marks)
        return after - before

    @property
    def stages(self) -> dict[str, float]:
        """Seconds per stage over the timed steps."""
        before, after = self.read
        return {stage: seconds - before.get(stage, 0.0) for stage, seconds in after.items()}


class Ended(Exception):
    """The last timed step is over."""


@contextmanager
def timed_records(device: torch.device) -> Iterator[None]:
    """Within: records contain the time of their creation, by a clock that all processes share."""
    announce = Run._announce

    def announce_with_time(run: Run, record: dict[str, Any]) -> None:
        wait_for(device)
        announce(run, {**record, MADE: time.perf_counter()})

    with patch.object(Run, "_announce", announce_with_time):
        yield


def measure(work: Work) -> Measured:
    """Train the runs together, without the fast path that the work excludes."""
    with plain(work.without):
        return measured(work)


def measured(work: Work) -> Measured:
    """Train the runs together; for stages, a second time with a clock in the engine."""
    task, backbone = work.load_task(), Backbone.load(work.backbone)
    if work.ends == "never":
        backbone.end_ids = [NEVER]
    memory = PeakMemory(backbone.device)
    timed = Measuring(work, memory)
    train(timed, backbone, task)
    peak, gpu_peak = memory.peak(), memory.gpu_peak()
    staged, padding = None, None
    if work.stages:
        clock = StageClock(wait=lambda: wait_for(backbone.device))
        watched = Measuring(work, clock=clock)
        torch.set_num_threads(1)
        train(watched, backbone, task)
        staged, padding = watched.stages, clock.padding
    return Measured(
        seconds=timed.seconds,
        samples=work.runs * work.steps * work.rows,
        **{key: timed.count(key) for key in COUNTS},
        adapter_parameters=backbone.layout.size - backbone.hidden_size - 1,
        prompt_tokens=fmean(len(backbone.encode(problem.prompt)) for problem in work.problems(task)),
        loaded_bytes=memory.loaded,
        peak_bytes=peak,
        gpu_peak_bytes=gpu_peak,
        stages=staged,
        padding=padding,
    )


def train(measuring: Measuring, backbone: Backbone, task: Task) -> None:
    """Train the runs in a temporary folder.

    Raises:
        RuntimeError: a run ended before its last step.
    """
    work = measuring.work
    watching = profiler.watch(measuring.clock) if measuring.clock else nullcontext()
    one = 1 if measuring.clock else None  # a clock reads one stage at a time, in one process
    engine = EngineSettings(micro_batch_tokens=work.micro_batch_tokens, processes=one)
    with tempfile.TemporaryDirectory() as folder, watching, timed_records(backbone.device):
        runs = {config.name: (config, Path(folder) / config.name) for config in configs(work, engine)}
        try:
            train_fleet(runs, on_record=measuring, backbone=backbone, task=task)
        except Ended:
            return
    raise RuntimeError("a run ended before its last step: its loss or gradient was not finite")


def configs(work: Work, engine: EngineSettings) -> list[RunConfig]:
    """Return the configurations of the runs: one objective, consecutive seeds."""
    return [
        RunConfig(
            objective=work.objective,
            seed=work.seed + k,
            task=TaskConfig(name=work.task),
            backbone=work.backbone,
            train=TrainSettings(
                steps=work.warmup + work.steps,
                prompts_per_step=work.prompts_per_step,
                group_size=work.group_size,
                minibatches=work.minibatches,
                max_new_tokens=work.max_new_tokens,
                save_every=SELDOM,
            ),
            optimizer=OPTIMIZER,
            evaluation=EvaluationSettings(every=SELDOM, prompts=1),
            engine=engine,
        )
        for k in range(work.runs)
    ]
