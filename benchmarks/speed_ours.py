"""This project's side: `train_fleet` as a user calls it, read at its own records."""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.speed_gains import plain
from benchmarks.speed_memory import PeakMemory, wait_for
from benchmarks.speed_work import NEVER, OPTIMIZER, Measured, Work
from rlzoo import stages
from rlzoo.backbone import Backbone
from rlzoo.config import EngineSettings, EvaluationSettings, RunConfig, TrainSettings
from rlzoo.stages import StageClock
from rlzoo.tasks import Task, TaskConfig
from rlzoo.train import train_fleet

COUNTS = ("tokens_sampled", "tokens_trained", "updates")
SELDOM = 10**9  # steps: never during a measurement


class Measuring:
    """Hears every record, and reads the clocks when the last run has ended its warm-up, and its last step.

    The runs of a fleet meet at sampling, so at both moments no work of another step is under way.
    """

    def __init__(self, work: Work, backbone: Backbone, clock: StageClock | None = None) -> None:
        self.work, self.backbone, self.clock = work, backbone, clock
        self.marks = (work.warmup, work.warmup + work.steps)
        self.records: dict[int, list[dict[str, Any]]] = {mark: [] for mark in self.marks}
        self.times: list[float] = []
        self.read: list[dict[str, float]] = []

    def __call__(self, name: str, record: dict[str, Any]) -> None:
        if record["kind"] != "train" or record["step"] not in self.marks:
            return
        reached = self.records[record["step"]]
        reached.append(record)
        if len(reached) < self.work.runs:
            return
        wait_for(self.backbone.device)
        self.times.append(time.perf_counter())
        if self.clock is not None:
            self.read.append(self.clock.read())
        if record["step"] == self.marks[-1]:
            raise Ended  # what comes after the last step is not measured

    @property
    def seconds(self) -> float:
        return self.times[1] - self.times[0]

    def count(self, key: str) -> int:
        """Increase of a counter over the timed steps, all runs together."""
        before, after = (sum(record[key] for record in self.records[mark]) for mark in self.marks)
        return after - before

    @property
    def stages(self) -> dict[str, float]:
        before, after = self.read
        return {stage: seconds - before.get(stage, 0.0) for stage, seconds in after.items()}


class Ended(Exception):
    """All that is measured has been done."""


def measure(work: Work) -> Measured:
    """Train the runs together, in the plain way where the work asks for it."""
    with plain(work.without):
        return measured(work)


def measured(work: Work) -> Measured:
    """Train the runs together; a second time with a clock in the engine if the work asks for its stages."""
    task, backbone = work.load_task(), Backbone.load(work.backbone)
    if work.ends == "never":
        backbone.end_ids = [NEVER]
    memory = PeakMemory(backbone.device)
    timed = Measuring(work, backbone)
    train(timed, task)
    peak, gpu_peak = memory.peak(), memory.gpu_peak()
    staged, padding = None, None
    if work.stages:
        clock = StageClock(wait=lambda: wait_for(backbone.device))
        watched = Measuring(work, backbone, clock)
        torch.set_num_threads(1)
        train(watched, task)
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


def train(measuring: Measuring, task: Task) -> None:
    """Train the runs in a folder of no further use."""
    work = measuring.work
    watching = stages.watch(measuring.clock) if measuring.clock else nullcontext()
    workers = 1 if measuring.clock else None  # a clock reads one stage at a time
    with tempfile.TemporaryDirectory() as folder, watching:
        runs = {config.name: (config, Path(folder) / config.name) for config in configs(work, workers)}
        try:
            train_fleet(runs, on_record=measuring, backbone=measuring.backbone, task=task)
        except Ended:
            return
    raise RuntimeError("a run ended before its last step: its loss or gradient was not finite")


def configs(work: Work, workers: int | None = None) -> list[RunConfig]:
    """The runs: one objective, seed after seed."""
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
            engine=EngineSettings(micro_batch_tokens=work.micro_batch_tokens, workers=workers),
        )
        for k in range(work.runs)
    ]
