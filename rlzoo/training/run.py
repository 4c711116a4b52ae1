"""One run: its configuration, learner, counters and folder; what it records and what a checkpoint holds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from objectives import Objective
from rlzoo.config.budget import Budget
from rlzoo.config.run import RunConfig
from rlzoo.engine.optimizer import Learner
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import ADAPTER, SUMMARY, RunFolder
from rlzoo.training.evaluate import Evaluation
from rlzoo.training.rollout import Account, Rollout
from rlzoo.training.teacher import Teacher

CRITIC = "critic"
"""Folder of a critic adapter, in the same format as the policy's."""
TIMES = ("elapsed_s", "engine_s")
"""Keys of a record that a repeated run does not repeat."""


class Run:
    """State of one run between steps.

    Attributes:
        step: rollouts trained on so far.
        teacher: whom its objective learns from, if it needs one.
        states: what the objective's parts carry from rollout to rollout, by place; see `Objective.at`.
        counters: cumulative updates, prompts and tokens; tokens_sampled includes what selection discarded.
        summary: the outcome, once there is one.
    """

    learner: Learner
    teacher: Teacher | None = None

    def __init__(self, config: RunConfig, folder: RunFolder, name: str, on_record: Callable[..., None] | None) -> None:
        self.config = config
        self.folder = folder
        self.name = name
        self.on_record = on_record
        self.step = 0
        self.budget = Budget.of(config.train.budget)
        self.states = config.objective.initial_states()
        self.counters = dict.fromkeys(
            ("updates", "prompts_sampled", "prompts_discarded", "tokens_sampled", "tokens_discarded", "tokens_trained"),
            0,
        )
        self.seconds = self.elapsed = 0.0
        self.started = time.monotonic()
        self.evaluations: list[dict[str, float | None]] = []
        self.summary: dict[str, Any] | None = None

    @classmethod
    def create(
        cls, config: RunConfig, folder: str | Path, resume: bool, name: str, on_record: Callable[..., None] | None
    ) -> Run:
        """Make the run's folder, or take up the one that is there."""
        return cls(config, RunFolder.create(folder, config.stored(), resume), name, on_record)

    def load(self, backbone: Backbone) -> None:
        """Make the learner and take up the last checkpoint, if there is one."""
        self.learner = Learner(backbone, self.config)
        state = self.folder.load_state()
        if state is not None:
            self.learner.restore(state["learner"])
            self.step, self.counters, self.evaluations = state["step"], state["counters"], state["evaluations"]
            self.states = state["states"]
            self.seconds, self.elapsed = state["seconds"], state["elapsed"]
            self.summary = state["summary"]
        self._announce({"kind": "start", "step": self.step, "steps": self.config.train.steps})
        for record in self.folder.read_metrics():
            self._announce(record)
        if self.summary is not None:
            self._announce({"kind": "end", **self.summary})

    @property
    def policy(self) -> Tensor | None:
        """What to sample from. None is the base, as is a fresh adapter: a fleet samples it once for all its runs."""
        return self.learner.theta if self.step else None

    @property
    def objective(self) -> Objective:
        """The objective, whose parts carry what they have come to."""
        return self.config.objective.at(self.states)

    def save(self, seconds: float, summary: dict[str, Any] | None = None) -> None:
        """Write a checkpoint."""
        self.folder.save_state(
            {
                "learner": self.learner.state(),
                "step": self.step,
                "counters": self.counters,
                "evaluations": self.evaluations,
                "states": self.states,
                "seconds": seconds,
                "elapsed": time.monotonic() - self.started,
                "summary": summary,
            }
        )

    def count(self, account: Account, *, updates: int, trained: int) -> None:
        """Add a step's cost to the counters and move the step on."""
        self.counters = {
            "updates": self.counters["updates"] + updates,
            "tokens_trained": self.counters["tokens_trained"] + trained,
            **{
                key: self.counters[key] + getattr(account, key)
                for key in ("prompts_sampled", "prompts_discarded", "tokens_sampled", "tokens_discarded")
            },
        }
        self.step += 1

    def spent(self, seconds: float) -> bool:
        """Whether the run has spent its budget, if it has one; `seconds` of engine time so far."""
        return self.budget is not None and self.budget.share({**self.counters, "engine_s": seconds}) >= 1

    def record_step(self, metrics: dict[str, float], rollout: Rollout, seconds: float) -> None:
        """Record a training step and keep some of its responses."""
        self._record("train", metrics, seconds)
        self._keep_samples("train", rollout, self.config.train.samples)

    def record_evaluation(self, evaluation: Evaluation, seconds: float) -> None:
        """Record an evaluation and keep some of its responses: the same prompts every time."""
        numbers = {key: value if math.isfinite(value) else None for key, value in evaluation.metrics.items()}
        self.evaluations = [*self.evaluations, {"step": self.step, **numbers}]
        self._record("eval", evaluation.metrics, seconds)
        self._keep_samples("eval", evaluation.rollout, self.config.train.samples)

    def finish(
        self, backbone: Backbone, seconds: float, failure: str | None = None, ended: str = "failure"
    ) -> dict[str, Any]:
        """Write adapter, summary and last checkpoint. A failed run keeps its parameters of before the bad update.

        Args:
            ended: what ended it: steps, budget or failure.
        """
        *_, last = self.evaluations or [{}]
        summary = {
            "name": self.name,
            "objective": self.config.row,
            "seed": self.config.seed,
            "state": "failed" if failure else "done",
            "failure": failure,
            "ended": ended,
            "budget": self.config.train.budget,
            "warnings": list(self.config.warnings),
            "step": self.step,
            "before": self.evaluations[0] if self.evaluations else None,
            "after": None if failure else last,
            **self.counters,
            "engine_s": seconds,
            "elapsed_s": time.monotonic() - self.started,
        }
        with self.folder.safely("save the adapter"):
            backbone.save_adapter(self.learner.theta, self.folder.path / ADAPTER)
            if self.learner.critic is not self.learner.theta:
                backbone.save_adapter(self.learner.critic, self.folder.path / CRITIC)
        self.folder.write_json(SUMMARY, summary)
        self.save(seconds, summary)
        self.summary = summary
        self._announce({"kind": "end", **summary})
        return summary

    def _record(self, kind: str, metrics: dict[str, float], seconds: float) -> None:
        times = dict(zip(TIMES, (time.monotonic() - self.started, seconds), strict=True))
        record = {"kind": kind, "step": self.step, **metrics, **self.counters, **times}
        self.folder.log(record)
        self._announce(record)

    def _keep_samples(self, kind: str, rollout: Rollout, count: int) -> None:
        """Keep the first response to each of the first `count` prompts."""
        rows = range(0, min(count, len(rollout.problems)) * rollout.group_size, rollout.group_size)
        self.folder.log_samples(
            {
                "kind": kind,
                "step": self.step,
                "prompt": rollout.problems[row // rollout.group_size].prompt,
                "completion": rollout.completions[row],
                "answer": rollout.problems[row // rollout.group_size].answer,
                "reward": float(rollout.reward_N[row]),
                "accuracy": float(rollout.accuracy_N[row]),
                "length": int(rollout.tokens.learn_NT[row].sum()),
                "finished": bool(rollout.finished_N[row]),
            }
            for row in rows
        )

    def _announce(self, record: dict[str, Any]) -> None:
        if self.on_record is not None:
            self.on_record(self.name, record)
