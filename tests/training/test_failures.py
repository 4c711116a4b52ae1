"""A run that cannot continue ends as failed, with the reason; the others continue."""

from __future__ import annotations

import asyncio
import errno
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from objectives import Objective
from rlzoo.config.run import RunConfig
from rlzoo.model.backbone import Backbone
from rlzoo.store import files
from rlzoo.store.run_folder import RunFolder
from rlzoo.tasks import Problem, Scores
from rlzoo.training.failure import in_thread
from rlzoo.training.launch import train, train_fleet
from rlzoo.training.rollout import draw
from tests.runs import EvenTask
from tests.training.same import assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]
ONE = {"processes": 1}


def runs(make_config: MakeConfig, root: Path, **tables: Any) -> dict[str, tuple[RunConfig, Path]]:
    """`bad` has seed 1, `good` seed 0."""
    return {
        name: (make_config("grpo", seed, engine=ONE, **tables), root / name) for name, seed in (("good", 0), ("bad", 1))
    }


class Fussy(EvenTask):
    """Does something else where it is given the first problem of the second step of seed 1."""

    def __init__(self, instead: Callable[[], Any]) -> None:
        super().__init__("even")
        self.instead = instead
        self.trigger = draw(self, 1, 1, 0, 4)[0].prompt

    def score(self, problems: Sequence[Problem], completions: Sequence[str]) -> Scores:
        if problems[0].prompt == self.trigger:
            self.instead()
        return super().score(problems, completions)


def check_the_good_one(make_config: MakeConfig, backbone: Backbone, root: Path, summaries: dict[str, Any]) -> None:
    assert (summaries["good"]["state"], summaries["good"]["failure"]) == ("done", None)
    train(make_config("grpo", 0), root / "alone", backbone=backbone)
    assert_same_run(root / "alone", root / "good", backbone)


def test_a_reward_that_raises(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """The step before it is kept; mended and resumed, the run ends as if nothing had happened."""

    def fail() -> None:
        raise LookupError("no judge today")

    summaries = train_fleet(runs(make_config, tmp_path), backbone=backbone, task=Fussy(fail))
    bad = summaries["bad"]
    assert bad["state"] == "failed" and bad["failure"] == "step 1: grading raised LookupError: no judge today"
    assert (bad["step"], bad["ended"]) == (1, "error")
    assert RunFolder.open(tmp_path / "bad").read_json("summary.json")["failure"] == bad["failure"]
    assert "in fail" in (tmp_path / "bad" / "failure.txt").read_text()
    check_the_good_one(make_config, backbone, tmp_path, summaries)
    again = train_fleet(runs(make_config, tmp_path), backbone=backbone, resume=True)
    assert again["bad"]["state"] == "done" and not (tmp_path / "bad" / "failure.txt").exists()
    train(make_config("grpo", 1), tmp_path / "whole", backbone=backbone)
    assert untimed(tmp_path / "whole") == untimed(tmp_path / "bad")


def test_a_reward_that_takes_too_long(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    released = threading.Event()
    limited = {"train": {"grading_timeout": 3.0}}
    try:
        summaries = train_fleet(
            runs(make_config, tmp_path, **limited), backbone=backbone, task=Fussy(lambda: released.wait(60))
        )
    finally:
        released.set()
    assert summaries["bad"]["state"] == "failed"
    assert summaries["bad"]["failure"] == "step 1: Fussy.score took longer than 3 s (train.grading_timeout)"
    assert summaries["good"]["state"] == "done"


def test_a_slow_reward_stops_nobody_else(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the other run to end; it would wait for ever if that one waited for it.

    That holds between two checkpoints: to save, the runs of a fleet wait for each other, so here none is due.
    """
    monkeypatch.setattr("rlzoo.engine.batcher.PATIENCE", 0.05)
    over = threading.Event()

    def hear(name: str, record: dict[str, Any]) -> None:
        if name == "good" and record["kind"] == "end":
            over.set()

    def wait() -> None:
        assert over.wait(60)

    summaries = train_fleet(
        runs(make_config, tmp_path, train={"save_every": 10}), backbone=backbone, task=Fussy(wait), on_record=hear
    )
    assert [summary["state"] for summary in summaries.values()] == ["done", "done"]
    check_the_good_one(make_config, backbone, tmp_path, summaries)


@pytest.mark.parametrize("file", ["metrics.jsonl", "samples.jsonl"])
def test_a_folder_that_cannot_be_written(
    file: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """The log has become a folder."""

    def spoil(name: str, record: dict[str, Any]) -> None:
        if (name, record["kind"], record["step"]) == ("bad", "train", 1):
            (tmp_path / "bad" / file).unlink()
            (tmp_path / "bad" / file).mkdir()

    summaries = train_fleet(runs(make_config, tmp_path), backbone=backbone, on_record=spoil)
    assert summaries["bad"]["state"] == "failed"
    assert f"{tmp_path / 'bad' / file} is a folder" in summaries["bad"]["failure"]
    check_the_good_one(make_config, backbone, tmp_path, summaries)


def test_a_full_disk(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the bad run's; with room again it is resumed, and ends as if nothing had happened."""
    append, full = files.append, True

    def limited(path: Path, data: bytes) -> None:
        if full and path == tmp_path / "bad" / "metrics.jsonl" and b'"step": 2' in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, data)

    monkeypatch.setattr(files, "append", limited)
    summaries = train_fleet(runs(make_config, tmp_path), backbone=backbone)
    assert summaries["bad"]["state"] == "failed"
    assert re.match(r"step 2: could not write metrics\.jsonl .*: the disk is full", summaries["bad"]["failure"])
    check_the_good_one(make_config, backbone, tmp_path, summaries)
    full = False
    assert train_fleet(runs(make_config, tmp_path), backbone=backbone, resume=True)["bad"]["state"] == "done"
    train(make_config("grpo", 1), tmp_path / "whole", backbone=backbone)
    assert_same_run(tmp_path / "whole", tmp_path / "bad", backbone)


def test_an_objective_that_raises(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a batch with the others, whose requests are then computed without it."""
    loss = Objective.loss

    def broken(self: Objective, policy: Any, batch: Any) -> Any:
        if self.ratio is not None and self.ratio.kind == "sequence":
            raise IndexError("out of range")
        return loss(self, policy, batch)

    monkeypatch.setattr(Objective, "loss", broken)
    both = runs(make_config, tmp_path) | {"bad": (make_config("gspo", 1, engine=ONE), tmp_path / "bad")}
    summaries = train_fleet(both, backbone=backbone)
    assert summaries["bad"]["failure"] == "step 0: forward_backward raised IndexError: out of range"
    check_the_good_one(make_config, backbone, tmp_path, summaries)


def test_whoever_listens_ends_all(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """An error of the caller's own is no run's failure."""

    def hear(name: str, record: dict[str, Any]) -> None:
        if (name, record["kind"]) == ("bad", "train"):
            raise OSError("the caller's disk")

    start = time.monotonic()
    with pytest.raises(OSError, match="the caller's disk"):
        train_fleet(runs(make_config, tmp_path, train={"steps": 10**5}), backbone=backbone, on_record=hear)
    assert time.monotonic() - start < 60
    assert not (tmp_path / "bad" / "summary.json").exists()


def test_a_reward_that_leaves_python_is_an_error_like_any_other() -> None:
    """sys.exit() in the grading thread: the answer comes at once, not after the timeout."""
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        asyncio.run(in_thread(sys.exit, 3, seconds=60))


class Mute(EvenTask):
    """Every response gets the same reward in the steps before `since`."""

    def __init__(self, since: int | None = None) -> None:
        super().__init__("even")
        self.since = since
        self.calls = 0

    def score(self, problems: Sequence[Problem], completions: Sequence[str]) -> Scores:
        self.calls += 1
        scores = super().score(problems, completions)
        silent = self.since is None or self.calls <= self.since
        return replace(scores, reward=[1.0] * len(completions)) if silent else scores


def test_a_run_that_stays_silent_warns_and_fails(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    config = make_config(train={"steps": 4, "silent_steps": 2}, evaluation={"every": 100})
    with pytest.warns(UserWarning, match=r"grpo: the first step has no signal.*failed after 2 such steps"):
        summary = train(config, tmp_path / "mute", backbone=backbone, task=Mute())
    assert (summary["state"], summary["ended"], summary["step"]) == ("failed", "failure", 2)
    assert "none of the first 2 steps had a signal (train.silent_steps)" in summary["failure"]
    assert train(config, tmp_path / "mute", resume=True, backbone=backbone) == summary  # it would end the same way


def test_a_run_with_one_signal_goes_on_and_null_never_ends_one(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """The evaluation before the first step is the first call, the first step the second: the third has a signal."""
    for name, most, since in (("heard", 2, 2), ("never", None, None)):
        config = make_config(train={"steps": 4, "silent_steps": most}, evaluation={"every": 100})
        with pytest.warns(UserWarning, match="the first step has no signal"):
            summary = train(config, tmp_path / name, backbone=backbone, task=Mute(since))
        assert (summary["state"], summary["step"]) == ("done", 4)


def test_runs_that_are_silent_together_warn_once(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """Two rows of two seeds in two processes: one warning, and listeners get records alone."""
    kinds: set[str] = set()
    table = {"train": {"steps": 1}, "evaluation": {"every": 100}, "engine": {"processes": 2}}
    made = {
        f"{row}{seed}": (make_config(row, seed, **table), tmp_path / f"{row}{seed}")
        for row in ("grpo", "reinforce")
        for seed in (0, 1)
    }
    with pytest.warns(UserWarning) as caught:
        train_fleet(made, backbone=backbone, task=Mute(), on_record=lambda name, record: kinds.add(record["kind"]))
    assert sum("first step has no signal" in str(one.message) for one in caught) == 1
    assert kinds == {"start", "train", "eval", "end"}
