"""A run folder: what is written is valid and complete, what is there is never lost, and a kill leaves it consistent."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.errors import UserError
from rlzoo.store.provenance import environment
from rlzoo.store.run_folder import METRICS, SAMPLES, STATE, RunFolder

CONFIG: dict[str, Any] = {
    "objective": {"name": "x", "clip": {"low": 0.2, "high": 0.28}},
    "task": {"name": "sort"},
    "train": {"steps": 3},
    "seed": 0,
    "sizes": (1, 2),
}


def line(step: int, **more: Any) -> dict[str, Any]:
    """A record of a training step."""
    return {"kind": "train", "step": step, **more}


def said(step: int, text: str = "a") -> dict[str, Any]:
    """A sample."""
    asked = {"kind": "train", "step": step, "prompt": "2+2=", "completion": text, "answer": "4"}
    return asked | {"reward": None, "accuracy": 0.0, "length": len(text), "finished": True}


def test_create_writes_configuration_and_environment(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a" / "run", CONFIG)
    assert folder.read_json("config.json") == {**CONFIG, "sizes": [1, 2]}
    made_with = folder.read_json("environment.json")
    assert made_with["torch"] == torch.__version__
    assert made_with["cores"] >= 1
    assert set(made_with) == set(environment())


def test_metrics_are_lines_of_valid_json(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log({"step": 1, "kind": "train", "reward": 0.5, "nested": {"loss": math.nan, "ratio": [math.inf, 1.0]}})
    folder.log({"step": 2, "kind": "eval", "accuracy": 1.0, "text": "é\n"})
    lines = (tmp_path / "run" / METRICS).read_text().splitlines()
    strict = [json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")) for line in lines]
    assert strict[0] == {"step": 1, "kind": "train", "reward": 0.5, "nested": {"loss": None, "ratio": [None, 1.0]}}
    assert strict[1]["text"] == "é\n"
    assert folder.read_metrics() == strict


def test_a_reader_skips_the_line_that_is_being_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(line(1))
    with open(folder.path / METRICS, "a") as file:
        file.write('{"step": 2, "rew')
    assert folder.read_metrics() == [line(1)]


def test_a_folder_in_use_is_refused_unless_resumed(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).log(line(1))
    with pytest.raises(UserError, match=r"already holds a run.*--resume.*--out"):
        RunFolder.create(tmp_path / "run", CONFIG)
    assert RunFolder.create(tmp_path / "run", CONFIG, resume=True).read_metrics() == [line(1)]


def test_a_run_that_never_began_does_not_hold_its_folder(tmp_path: Path) -> None:
    """The model was misspelt, say: the corrected command runs as it is, and what the folder tells is the new one."""
    RunFolder.create(tmp_path / "run", CONFIG)
    folder = RunFolder.create(tmp_path / "run", CONFIG | {"seed": 5})
    assert folder.read_json("config.json")["seed"] == 5 and not folder.began
    folder.save_state({"step": 0})
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder.create(tmp_path / "run", CONFIG)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"holds no run.*thesis\.tex"):
        RunFolder.create(tmp_path, CONFIG, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_resuming_with_another_configuration_names_every_difference(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).log(line(1))
    other = CONFIG | {"objective": {"name": "x", "clip": {"low": 0.2, "high": 0.4}}, "seed": 1, "extra": True}
    with pytest.raises(UserError) as caught:
        RunFolder.create(tmp_path / "run", other, resume=True)
    message = str(caught.value)
    assert "objective.clip.high: 0.28 in the folder, 0.4 asked for" in message
    assert "seed: 0 in the folder, 1 asked for" in message
    assert "extra: not set in the folder, true asked for" in message
    assert "clip.low" not in message and "sizes" not in message


def test_resuming_keeps_the_account_of_earlier_sessions(tmp_path: Path) -> None:
    for _ in range(3):
        folder = RunFolder.create(tmp_path / "run", CONFIG, resume=True)
    made_with = folder.read_json("environment.json")
    assert len(made_with["earlier"]) == 2
    assert all("earlier" not in session and session["torch"] for session in made_with["earlier"])


def test_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_state_round_trip_and_logs_cut_back_to_it(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(line(1))
    folder.log_samples([said(1), said(1, "b")])
    folder.save_state({"step": 1, "theta": torch.arange(3.0), "nested": [{"x": torch.ones(2, dtype=torch.int64)}]})
    folder.log(line(2))
    folder.log_samples([said(2, "c")])
    with open(folder.path / METRICS, "a") as file:
        file.write('{"step": 3, "torn')

    resumed = RunFolder.create(tmp_path / "run", CONFIG, resume=True)
    state = resumed.load_state()
    assert state is not None and state["step"] == 1
    assert torch.equal(state["theta"], torch.arange(3.0))
    assert state["nested"][0]["x"].dtype == torch.int64
    resumed.log(line(2, again=True))
    assert resumed.read_metrics() == [line(1), line(2, again=True)]
    assert (folder.path / SAMPLES).read_text().count("\n") == 2


def test_without_a_checkpoint_a_resumed_run_begins_with_empty_logs(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(line(1))
    assert folder.load_state() is None
    assert folder.read_metrics() == []


def test_a_log_shorter_than_the_checkpoint_remembers_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(line(1))
    folder.save_state({"step": 1})
    (folder.path / METRICS).unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl is shorter"):
        folder.load_state()


def test_a_checkpoint_that_is_none_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    (folder.path / STATE).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        folder.load_state()


def test_loading_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    torch.save({"state": Boobytrap(str(tmp_path / "sprung")), "lengths": {}}, folder.path / STATE)
    with pytest.raises(UserError, match=r"cannot be read.*holds code, which is never run"):
        folder.load_state()
    assert not (tmp_path / "sprung").exists()


def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    theta = torch.full((999,), 0.125)
    folder.save_state({"step": 1, "theta": theta})
    whole = (folder.path / STATE).read_bytes()
    start = whole.index(theta.numpy().tobytes())
    for place in range(start, start + theta.nbytes, 317):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        (folder.path / STATE).write_bytes(broken)
        with pytest.raises(UserError, match=r"state\.pt cannot be read.*checksum"):
            folder.load_state()
    (folder.path / STATE).write_bytes(whole)
    assert folder.load_state() is not None


def test_an_edited_log_is_noticed_before_a_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(line(1, reward=0.25))
    folder.save_state({"step": 1})
    folder.log(line(2))
    text = (folder.path / METRICS).read_text()
    (folder.path / METRICS).write_text(text.replace("0.25", "0.75"))
    with pytest.raises(UserError, match=r"metrics\.jsonl is not what it was"):
        RunFolder.create(tmp_path / "run", CONFIG, resume=True).load_state()
    (folder.path / METRICS).write_text(text)
    assert RunFolder.create(tmp_path / "run", CONFIG, resume=True).load_state() == {"step": 1}


class Boobytrap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


needs_dev_full = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full"
)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files whose disk is full: what is opened to write them is /dev/full."""
    names: set[str] = set()
    opened = os.open

    def open_there(path: Any, flags: int, *mode: int) -> int:
        there = Path(path).name in names and flags & os.O_WRONLY
        return opened("/dev/full", os.O_WRONLY) if there else opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", open_there)
    return names


@needs_dev_full
def test_a_full_disk_while_logging_says_what_is_safe(tmp_path: Path, full: set[str]) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    full.add(SAMPLES)
    with pytest.raises(UserError, match=r"disk is full.*Free some space, or name another folder"):
        folder.log_samples([said(1)])
    full.clear()
    folder.log(line(1))
    folder.save_state({"step": 1})
    full.add(SAMPLES)
    with pytest.raises(UserError, match=r"disk is full.*checkpoint is safe.*--resume"):
        folder.log_samples([said(2)])


@needs_dev_full
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_full_disk_while_checkpointing_keeps_the_last_checkpoint(tmp_path: Path, size: int, full: set[str]) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.log(line(1))
    folder.save_state({"step": 1})
    full.add(STATE + ".partial")
    with pytest.raises(UserError, match=r"write state\.pt.*disk is full.*checkpoint is safe.*--resume"):
        folder.save_state({"step": 2, "theta": torch.zeros(size)})
    assert not (folder.path / (STATE + ".partial")).exists()
    state = folder.load_state()
    assert state is not None and state["step"] == 1
    assert folder.read_metrics() == [line(1)]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"could not make the folder.*Not a directory.*--out"):
        RunFolder.create(tmp_path / "file" / "run", CONFIG)


STEPS, EVERY = 250, 7


def write_run(path: Path, started: Event) -> None:
    """Write a run of STEPS steps, from wherever its checkpoint is: what a killed and resumed trainer does."""
    folder = RunFolder.create(path, CONFIG, resume=True)
    state = folder.load_state() or {"step": 0, "theta": torch.zeros(2000)}
    started.set()
    step, theta = state["step"], state["theta"]
    while step < STEPS:
        step, theta = step + 1, theta + 1
        folder.log(line(step, reward=step / STEPS))
        folder.log_samples([said(step, "x" * (step % 50)), said(step, "y")])
        if step % EVERY == 0 or step == STEPS:
            folder.save_state({"step": step, "theta": theta})


def test_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["rlzoo.store.run_folder"])
    chance = random.Random(0)
    kills = 0
    while True:
        started = processes.Event()
        writer = processes.Process(target=write_run, args=(tmp_path / "killed", started))
        writer.start()
        assert started.wait(60)
        # Some are killed at once, most in the middle; the later ones get time enough for one to reach the end.
        time.sleep(chance.random() * 0.008 * (1 + kills / 8))
        if writer.exitcode is None:
            writer.kill()
        writer.join()
        if writer.exitcode == 0:
            break
        assert writer.exitcode == -signal.SIGKILL
        kills += 1
        assert kills < 200
    assert kills >= 3

    write_run(tmp_path / "whole", processes.Event())
    for name in (METRICS, SAMPLES):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    killed, whole = (RunFolder.open(tmp_path / name).load_state() for name in ("killed", "whole"))
    assert killed is not None and whole is not None
    assert killed["step"] == whole["step"] == STEPS
    assert torch.equal(killed["theta"], whole["theta"])


def test_a_folder_of_an_earlier_version_is_said_to_be_one(tmp_path: Path) -> None:
    """It lacks settings, and sets none otherwise: no command line could ask for the same."""
    RunFolder.create(tmp_path / "run", CONFIG).log(line(1))
    later = CONFIG | {"shuffle": True}
    with pytest.raises(UserError, match=r"shuffle: not set in the folder, true asked for\nIt was written by a version"):
        RunFolder.create(tmp_path / "run", later, resume=True)
    with pytest.raises(UserError, match="Continue with the settings of the folder"):
        RunFolder.create(tmp_path / "run", later | {"seed": 1}, resume=True)
