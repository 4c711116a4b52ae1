"""Killed at any moment, a run that is resumed ends as one that was never interrupted."""

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


def test_a_fleet_killed_and_resumed_at_different_steps(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Runs of a fleet stand at different steps when it dies; each goes on from its own checkpoint."""
    configs = {name: make_config(name, train={"save_every": 2, "steps": 4}) for name in ("reinforce", "dapo", "grpo")}

    def runs(root: str) -> dict[str, tuple[RunConfig, Path]]:
        return {name: (config, tmp_path / root / name) for name, config in configs.items()}

    train_fleet(runs("whole"), backbone=backbone)

    def kill(name: str, record: dict[str, Any]) -> None:
        if name == "grpo" and record["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train_fleet(runs("killed"), backbone=backbone, on_record=kill)
    train_fleet(runs("killed"), backbone=backbone, resume=True)
    for name in configs:
        assert_same_run(tmp_path / "whole" / name, tmp_path / "killed" / name, backbone)


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
