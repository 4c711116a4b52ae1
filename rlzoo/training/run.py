"""One run: its configuration, counters and folder; its records and checkpoints.

A checkpoint is a folder written by the engine (adapters, optimizer) and the file `state.pt`, which names the folder and
holds everything else. The folder is written first, so after a kill at any time `state.pt` names a complete folder.
"""

from __future__ import annotations

import math
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from objectives import Objective
from rlzoo.config.budget import Budget
from rlzoo.config.run import RunConfig
from rlzoo.engine.protocol import AdamSettings, Engine, MuonSettings, RunSpec, StepSettings
from rlzoo.errors import UserError
from rlzoo.store.lock import hold
from rlzoo.store.outcomes import pack
from rlzoo.store.run_folder import ADAPTER, CRITIC, SUMMARY, RunFolder
from rlzoo.training.client import Client
from rlzoo.training.evaluate import Evaluation
from rlzoo.training.failure import RunFailed, failing
from rlzoo.training.rollout import Account, Rollout
from rlzoo.training.schedule import rate_factor
from rlzoo.training.signal import WARNING, Signal

CHECKPOINT = "checkpoint-"
"""Beginning of the name of a checkpoint's folder; the number of optimizer steps follows."""
FAILURE = "failure.txt"
"""File with the traceback of a failed run."""
TIMES = ("elapsed_s", "engine_s")
"""Keys of a record that differ between repetitions of a run."""

UNPAIRED = "The sampler has noise of its own: runs with equal seeds share their prompts, not their noise."

Summary = dict[str, Any]


def whole_checkpoint(folder: RunFolder, state: dict[str, Any]) -> str:
    """Return the name of a checkpoint's folder, after verifying that all its files are intact.

    Raises:
        UserError: the name leads elsewhere, or a file is missing or damaged.
    """
    name = state["checkpoint"]
    if not (isinstance(name, str) and name.removeprefix(CHECKPOINT).isdecimal() and name.startswith(CHECKPOINT)):
        raise UserError(f"the checkpoint in {folder.path} names {name!r}, which is no folder of a checkpoint")
    for problem in folder.changed(state.get("files", {})):
        raise UserError(f"{problem}. Put back a copy, or start again in another folder.")
    return name


class Run:
    """State of one run between steps.

    Attributes:
        step: rollouts trained on so far.
        meeting: number of meetings with the other runs of its fleet so far; see `rlzoo.training.meetings`.
        client: the run's client of the engine, from `begin` on.
        states: states of the objective's parts, by place; see `Objective.at`.
        counters: cumulative updates, prompts and tokens; tokens_sampled includes what selection discarded.
        signal: what the steps so far had to learn from.
        seconds: engine time up to the last checkpoint.
        summary: the outcome, once there is one.
    """

    client: Client

    def __init__(self, config: RunConfig, folder: RunFolder, name: str, on_record: Callable[..., None] | None) -> None:
        self.config = config
        self.folder = folder
        self.name = name
        self.on_record = on_record
        self.step = self.meeting = 0
        self.checkpoint: str | None = None
        self.budget = Budget.of(config.train.budget)
        self.states = config.objective.initial_states()
        self.counters = dict.fromkeys(
            ("updates", "prompts_sampled", "prompts_discarded", "tokens_sampled", "tokens_discarded", "tokens_trained"),
            0,
        )
        self.signal = Signal()
        self.seconds = self.elapsed = 0.0
        self.started = time.monotonic()
        self.evaluations: list[dict[str, float | None]] = []
        self.tests: list[dict[str, float | None]] = []
        self.summary: Summary | None = None

    @classmethod
    def create(
        cls,
        config: RunConfig,
        folder: str | Path,
        resume: bool,
        name: str,
        on_record: Callable[..., None] | None,
        lock: Callable[[Path], Any] = hold,
    ) -> Self:
        """Create the run's folder, or open the existing one, and take the right to write into it."""
        return cls(config, RunFolder.create(folder, config.stored(), resume, lock), name, on_record)

    def restore(self) -> None:
        """Restore the last checkpoint, if there is one."""
        state = self.folder.load_state()
        if state is not None:
            if "checkpoint" not in state:
                raise UserError(
                    f"the checkpoint in {self.folder.path} was written by an earlier version: start in another folder"
                )
            self.checkpoint = whole_checkpoint(self.folder, state)
            self.step, self.counters, self.evaluations = state["step"], state["counters"], state["evaluations"]
            self.tests = state["tests"]
            self.states = state["states"]
            # Earlier versions did not keep the signal: a run that has made steps is taken to have had one.
            self.signal = Signal(**state["signal"]) if "signal" in state else Signal(silent=self.step == 0)
            self.meeting = state.get("meeting", 0)
            self.seconds, self.elapsed = state["seconds"], state["elapsed"]
            self.summary = state["summary"]
        if self.summary is None:
            for name in (SUMMARY, FAILURE):  # of a failure that resuming may mend
                (self.folder.path / name).unlink(missing_ok=True)
        self._announce({"kind": "start", "step": self.step, "steps": self.config.train.steps})
        for record in self.folder.read_metrics():
            self._announce(record)
        if self.summary is not None:
            self._announce({"kind": "end", **self.summary})

    async def begin(self, engine: Engine) -> Client:
        """Create the run in the engine from the last checkpoint; its clock continues from there."""
        config = self.config
        optimizer = config.optimizer
        spec = RunSpec(
            run=self.name,
            seed=config.noise_seed,
            critic=config.train.critic or "head",
            optimizer=(
                AdamSettings(optimizer.betas, optimizer.eps, optimizer.weight_decay)
                if optimizer.kind == "adamw"
                else MuonSettings(optimizer.momentum, optimizer.weight_decay)
            ),
            steady=True,
        )
        saved = None if self.checkpoint is None else str(self.folder.path / self.checkpoint)
        self.client = await Client.open(engine, spec, saved)
        self.client.seconds = self.seconds
        self.started = time.monotonic() - self.elapsed
        return self.client

    @property
    def objective(self) -> Objective:
        """The objective, with the current states of its parts."""
        return self.config.objective.at(self.states)

    def step_settings(self) -> StepSettings:
        """The settings of this step's updates."""
        config, optimizer = self.config, self.config.optimizer
        factor = rate_factor(optimizer, self.step, config.train.steps)
        waits = self.step < config.train.value_warmup_steps
        return StepSettings(
            lr=optimizer.lr * factor,
            critic_lr=(optimizer.critic_lr or optimizer.lr) * factor,
            max_grad_norm=optimizer.max_grad_norm,
            trains="nothing" if config.control == "frozen" else "critic" if waits else "all",
        )

    async def meet(self) -> None:
        """Wait for the other runs of the fleet and write a checkpoint of this common moment."""
        await self.client.meet()
        self.meeting += 1
        await self.save()

    async def save(self, summary: Summary | None = None) -> None:
        """Write a checkpoint. The one before it stays until the next, or until the fleet has ended."""
        name = f"{CHECKPOINT}{self.client.policy.version}"
        with failing("saving the checkpoint"):
            if name != self.checkpoint:  # without an update since, the folder is there, and the last checkpoint's
                with self.folder.safely("save the checkpoint"):
                    shutil.rmtree(self.folder.path / name, ignore_errors=True)  # of a kill
                    (self.folder.path / name).mkdir()
                    await self.client.save(str(self.folder.path / name))
            self.folder.save_state(
                {
                    "checkpoint": name,
                    "files": self.folder.checksums(name),
                    "step": self.step,
                    "meeting": self.meeting,
                    "counters": self.counters,
                    "evaluations": self.evaluations,
                    "tests": self.tests,
                    "states": self.states,
                    "signal": self.signal.stored(),
                    "seconds": self.client.seconds,
                    "elapsed": time.monotonic() - self.started,
                    "summary": summary,
                }
            )
        before, self.checkpoint = self.checkpoint, name
        self._keep_only(name, before)

    def settle(self) -> None:
        """Keep the last checkpoint alone: the fleet has ended, and nobody goes back."""
        self.folder.forget_before()
        saved = self.folder.read_state()  # not `self.checkpoint`: another process may have trained the run
        self._keep_only(None if saved is None else saved["state"]["checkpoint"])

    def _keep_only(self, *names: str | None) -> None:
        for folder in self.folder.path.glob(CHECKPOINT + "*"):
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def count(self, account: Account, *, updates: int, trained: int) -> None:
        """Add a step's cost to the counters and increment the step."""
        self.counters = {
            "updates": self.counters["updates"] + updates,
            "tokens_trained": self.counters["tokens_trained"] + trained,
            **{
                key: self.counters[key] + getattr(account, key)
                for key in ("prompts_sampled", "prompts_discarded", "tokens_sampled", "tokens_discarded")
            },
        }
        self.step += 1

    def hear(self, signal: bool, norms: Sequence[float]) -> None:
        """Take in what the last step had to learn from; see `Signal.hear`."""

        def warn(cause: str, text: str) -> None:
            self._announce({"kind": WARNING, "cause": cause, "text": text})

        most = self.config.train.silent_steps
        self.signal.hear(self.config.row, self.step, most, signal=signal, norms=norms, warn=warn)

    @property
    def spent(self) -> bool:
        """Whether the run has spent its budget, if it has one."""
        return self.budget is not None and self.budget.share({**self.counters, "engine_s": self.client.seconds}) >= 1

    def record_step(self, metrics: dict[str, float], rollout: Rollout) -> None:
        """Record a training step and keep some of its responses."""
        self._record("train", metrics)
        self._keep_samples("train", rollout, self.config.train.samples)

    def record_evaluation(self, evaluation: Evaluation, kind: Literal["eval", "test"] = "eval") -> None:
        """Record an evaluation; keep some responses of those on the validation split: the same prompts every time."""
        numbers = {key: value if math.isfinite(value) else None for key, value in evaluation.metrics.items()}
        record = {**evaluation.metrics, "outcomes": pack(evaluation.outcomes)}
        if kind == "test":
            self.tests = [*self.tests, {"step": self.step, **numbers}]
            self._record(kind, record)
            return
        self.evaluations = [*self.evaluations, {"step": self.step, **numbers}]
        self._record(kind, record)
        self._keep_samples(kind, evaluation.rollout, self.config.train.samples)

    async def finish(self, ended: str) -> Summary:
        """Write adapter, summary and last checkpoint. `ended`: what ended the run, steps or budget."""
        return await self._keep(self._summary(ended))

    async def fail(self, error: RunFailed) -> Summary:
        """Record why the run ended. Its parameters stay those before the failure.

        If the failure is final, the run is finished like any other; otherwise the last checkpoint stays for resuming.
        """
        summary = self._summary("failure" if error.final else "error", f"step {self.step}: {error}")
        if error.final:
            with suppress(RunFailed):  # the folder cannot be written either: what is returned still has the reason
                return await self._keep(summary)
        with suppress(UserError):
            self.folder.write_text(FAILURE, "".join(traceback.format_exception(error)))
            self.folder.write_json(SUMMARY, summary)
        return self._end(summary)

    async def _keep(self, summary: Summary) -> Summary:
        with failing("saving the run"):
            with self.folder.safely("save the adapter"):
                await self.client.save(str(self.folder.path), optimizer=False)
                summary["files"] = self.folder.checksums(ADAPTER, CRITIC)
            self.folder.write_json(SUMMARY, summary)
        await self.save(summary)
        return self._end(summary)

    def _end(self, summary: Summary) -> Summary:
        self.summary = summary
        self._announce({"kind": "end", **summary})
        return summary

    def _summary(self, ended: str, failure: str | None = None) -> Summary:
        scored = self.tests or self.evaluations or [None]
        return {
            "name": self.name,
            "objective": self.config.row,
            "seed": self.config.seed,
            "state": "failed" if failure else "done",
            "failure": failure,
            "ended": ended,
            "budget": self.config.train.budget,
            "warnings": [*self.config.warnings, *self.signal.remarks(self.config.row), *self._unpaired],
            "step": self.step,
            "before": scored[0],
            "after": scored[-1],
            **self.counters,
            "engine_s": self.client.seconds if hasattr(self, "client") else self.seconds,
            "elapsed_s": time.monotonic() - self.started,
        }

    @property
    def _unpaired(self) -> list[str]:
        began = hasattr(self, "client")
        return [UNPAIRED] if began and not self.client.info.shared_noise else []

    def _record(self, kind: str, metrics: dict[str, Any]) -> None:
        times = dict(zip(TIMES, (time.monotonic() - self.started, self.client.seconds), strict=True))
        record = {"kind": kind, "step": self.step, **metrics, **self.counters, **times}
        with failing("recording"):
            self.folder.log(record)
        self._announce(record)

    def _keep_samples(self, kind: str, rollout: Rollout, count: int) -> None:
        """Keep the first response to each of the first `count` prompts."""
        rows = range(0, min(count, len(rollout.problems)) * rollout.group_size, rollout.group_size)
        with failing("keeping samples"):
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
