"""A run killed at any moment and resumed ends like an uninterrupted one."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder, read_lines
from rlzoo.training.launch import train, train_fleet
from rlzoo.training.run import TIMES
from tests.training.same import assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def outcome(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bytes]:
    """Everything a run leaves behind that does not tell the time."""
    return (
        untimed(folder),
        read_lines(folder / "samples.jsonl"),
        (folder / "adapter/adapter_model.safetensors").read_bytes(),
    )


@pytest.mark.parametrize("objective", ["ppo", "dapo"])
@pytest.mark.parametrize("save_every", [1, 2])
def test_a_run_killed_at_any_record_ends_as_if_it_had_not_been(
    objective: str, save_every: int, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """PPO with both adaptive KLs, a critic adapter and warm-up: everything that has a state."""
    ppo: dict[str, Any] = {
        "optimizer": {"warmup_steps": 2, "schedule": "cosine", "critic_lr": 1e-3},
        "train": {"critic": "adapter", "steps": 4, "save_every": save_every},
    }
    dapo: dict[str, Any] = {"train": {"steps": 4, "save_every": save_every}}
    row = "ppo[shape.target=0.1,kl=old,kl.target=0.001]" if objective == "ppo" else objective
    config = make_config(row, **(ppo if objective == "ppo" else dapo))
    uninterrupted = train(config, tmp_path / "whole", backbone=backbone)
    whole = outcome(tmp_path / "whole")
    for survive in range(1, len(whole[0]) + 1):
        seen = 0

        def kill(_: str, record: dict[str, Any], survive: int = survive) -> None:
            nonlocal seen
            seen += record["kind"] in ("train", "eval")
            if seen == survive:
                raise Killed

        folder = tmp_path / f"killed{survive}"
        with pytest.raises(Killed):
            train(config, folder, backbone=backbone, on_record=kill)
        summary = train(config, folder, backbone=backbone, resume=True)
        assert {k: v for k, v in summary.items() if k not in TIMES} == {
            k: v for k, v in uninterrupted.items() if k not in TIMES
        }
        assert summary["state"] == "done" and outcome(folder) == whole


Runs = dict[str, tuple[RunConfig, Path]]


def fleet_of(make_config: MakeConfig, root: Path, processes: int = 1, steps: int = 5, save_every: int = 2) -> Runs:
    """Runs whose paces differ: dapo samples again, demonstrations sample nothing, and one run ends early."""
    lengths = {"dapo": steps, "sft": steps, "ppo": steps, "grpo": steps - save_every}
    engine = {"processes": processes}
    runs = {
        name: make_config(name, train={"save_every": save_every, "steps": count}, engine=engine)
        for name, count in lengths.items()
    }
    return {name: (config, root / name) for name, config in runs.items()}


def files_of(runs: Runs) -> dict[str, Any]:
    """Everything of a fleet that does not tell the time: what the files hold, and the names of all files."""
    found: dict[str, Any] = {}
    for name, (_, folder) in runs.items():
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        (checkpoint,) = folder.glob("checkpoint-*")
        found[name] = (outcome(folder), names, (checkpoint / "optimizer.pt").read_bytes())
    return found


def the_same(runs: Runs, whole: dict[str, Any]) -> bool:
    """Not compared by `==` in the assertion itself: pytest would print the bytes of every file."""
    return files_of(runs) == whole


@pytest.mark.parametrize("processes", [1, 2])
def test_a_fleet_killed_at_any_moment_ends_with_the_same_bytes(
    processes: int, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Runs stand at different steps when it dies: all go back to a common meeting and share the same batches again."""
    runs = fleet_of(make_config, tmp_path / "whole", processes)
    seen: list[tuple[str, str, int]] = []
    train_fleet(runs, backbone=backbone, on_record=lambda name, r: seen.append((name, r["kind"], r["step"])))
    whole = files_of(runs)
    # In the first part, after grpo's end in the second, and when all have ended but one.
    last = [moment for moment in seen if moment[1] == "end"]
    for moment in [("dapo", "train", 1), ("dapo", "train", 4), last[-2]]:

        def kill(name: str, record: dict[str, Any], moment: Any = moment) -> None:
            if (name, record["kind"], record["step"]) == moment:
                raise Killed

        killed = fleet_of(make_config, tmp_path / "-".join(map(str, moment)), processes)
        with pytest.raises(Killed):
            train_fleet(killed, backbone=backbone, on_record=kill)
        train_fleet(killed, backbone=backbone, resume=True)
        assert the_same(killed, whole), moment


@pytest.fixture(scope="module")
def whole_fleet(make_config: MakeConfig, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the fleet's files hold without a kill."""
    runs = fleet_of(make_config, tmp_path_factory.mktemp("whole"))
    train_fleet(runs, backbone=backbone)
    return files_of(runs)


SLOW = [pytest.param(write, marks=pytest.mark.slow) for write in (1, 2, 5, 7, 8, 9, 11, 13, 15, 16, 17)]


@pytest.mark.parametrize("write", [4, 12, 14, *SLOW])
def test_a_fleet_killed_while_it_saves_ends_with_the_same_bytes(
    write: int,
    make_config: MakeConfig,
    backbone: Backbone,
    whole_fleet: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the n-th of all writes of state.pt and before.pt: between two runs' checkpoints of one meeting, too."""
    killed = fleet_of(make_config, tmp_path)
    replace, writes = RunFolder._replace, iter(range(1, 1000))

    def dying(folder: RunFolder, name: str, fill: Any) -> None:
        if name.endswith(".pt") and next(writes) == write:
            raise Killed
        replace(folder, name, fill)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "_replace", dying)
        with pytest.raises(Killed):
            train_fleet(killed, backbone=backbone)
    train_fleet(killed, backbone=backbone, resume=True)
    assert the_same(killed, whole_fleet)


FLEET_SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
import tests.runs
from rlzoo.config.run import RunConfig
from rlzoo.training.launch import train_fleet
runs = {name: (RunConfig.model_validate(config), folder) for name, (config, folder) in json.loads(sys.argv[1]).items()}
train_fleet(runs, resume=True)
"""


@pytest.mark.slow
def test_a_fleet_of_forty_steps_killed_at_random_moments(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """`kill -9` of the group, after a random time in training, in the checkpoint's writes as well; two processes."""

    def start(runs: Runs) -> subprocess.Popen[bytes]:
        told = {name: (config.stored(), str(folder)) for name, (config, folder) in runs.items()}
        command = [sys.executable, "-c", FLEET_SCRIPT, json.dumps(told), str(Path(__file__).parents[2])]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)

    whole = fleet_of(make_config, tmp_path / "whole", 2, steps=40, save_every=5)
    assert start(whole).wait(timeout=600) == 0
    killed, rng, kills = fleet_of(make_config, tmp_path / "killed", 2, steps=40, save_every=5), Random(0), 0
    process = start(killed)
    while kills < 12 and process.poll() is None:
        saved = {folder: (folder / "state.pt").stat().st_mtime_ns for _, folder in killed.values() if has_state(folder)}
        while process.poll() is None:  # until a checkpoint is written, and then at any moment of it or after it
            time.sleep(0.001)
            if any(has_state(f) and (f / "state.pt").stat().st_mtime_ns != saved.get(f) for _, f in killed.values()):
                break
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.02), rng.uniform(0, 2)]))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            process = start(killed)
    assert process.wait(timeout=600) == 0 and kills >= 4
    assert the_same(killed, files_of(whole))


def has_state(folder: Path) -> bool:
    return (folder / "state.pt").is_file()


def test_runs_added_to_an_ended_fleet_leave_it_alone(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Nothing is done again for runs that had ended with their fleet, though they ended at the new one's beginning."""
    runs = fleet_of(make_config, tmp_path, steps=12, save_every=10)
    train_fleet({name: run for name, run in runs.items() if name != "dapo"}, backbone=backbone)
    seen: list[tuple[str, str]] = []
    train_fleet(runs, backbone=backbone, resume=True, on_record=lambda name, r: seen.append((name, r["kind"])))
    last = [seen.index((name, "end")) for name in runs if name != "dapo"]
    assert max(last) < seen.index(("dapo", "train"))


def test_resuming_a_finished_run_changes_nothing(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    summary = train(make_config(), tmp_path, backbone=backbone)
    before = outcome(tmp_path)
    assert train(make_config(), tmp_path, backbone=backbone, resume=True) == summary
    assert outcome(tmp_path) == before


def test_a_disk_that_fills_at_the_end_loses_nothing(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    train(make_config(), tmp_path / "whole", backbone=backbone)
    with monkeypatch.context() as patched:
        patched.setattr(Backbone, "save_adapter", full)
        summary = train(make_config(), tmp_path / "full", backbone=backbone)
    assert summary["state"] == "failed"
    assert re.search(r"could not save the checkpoint .* disk is full", summary["failure"])
    train(make_config(), tmp_path / "full", backbone=backbone, resume=True)
    assert outcome(tmp_path / "full") == outcome(tmp_path / "whole")


def test_a_folder_in_use_or_of_other_settings_is_refused(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    train(make_config(), tmp_path, backbone=backbone)
    with pytest.raises(UserError, match="--resume"):
        train(make_config(), tmp_path, backbone=backbone)
    with pytest.raises(UserError, match=r"optimizer\.lr: 0.003 in the folder, 0.5 asked for"):
        train(make_config(optimizer={"lr": 0.5}), tmp_path, backbone=backbone, resume=True)
    train(make_config(engine={"micro_batch_tokens": 50}), tmp_path, backbone=backbone, resume=True)  # no result changes


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
import tests.runs
from rlzoo.config.run import RunConfig
from rlzoo.training.launch import train
train(RunConfig.model_validate(json.loads(sys.argv[1])), sys.argv[2], resume=True)
"""


def test_kill_minus_nine(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    config = make_config("grpo", train={"steps": 40, "save_every": 1})
    folder = tmp_path / "killed"
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", SCRIPT, json.dumps(config.stored()), str(folder), root]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while len(read_lines(folder / "metrics.jsonl")) < 12:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(read_lines(folder / "metrics.jsonl")) < 50, "it finished before it was killed"
    train(config, folder, backbone=backbone, resume=True)
    train(config, tmp_path / "whole", backbone=backbone)
    assert_same_run(tmp_path / "whole", folder, backbone, tolerance=1e-5)
    state, twin = (RunFolder.open(f).load_state() for f in (folder, tmp_path / "whole"))
    assert state is not None and twin is not None and state["checkpoint"] == twin["checkpoint"]
    moments = [
        torch.load(f / state["checkpoint"] / "optimizer.pt")["optimizer"]["state"] for f in (folder, tmp_path / "whole")
    ]
    torch.testing.assert_close(*moments, rtol=0, atol=1e-5)


def test_a_checkpoint_from_before_signals_were_kept_goes_on(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """It has made steps, so it is taken to have had a signal; what it lacks is no reason to train it again."""
    config = make_config("grpo", train={"steps": 4, "save_every": 1})

    def stop(name: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(config, tmp_path, backbone=backbone, on_record=stop)
    folder = RunFolder(tmp_path)
    state = folder.load_state()
    assert state is not None and state["step"] == 2
    del state["signal"]
    folder.save_state(state)
    del folder, state
    assert train(config, tmp_path, resume=True, backbone=backbone)["state"] == "done"
