"""A folder has one writer: another process is refused, this one is not, and a kill lets go."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.experiments.compare import compare
from rlzoo.store.lock import LOCK, hold, hold_whole
from rlzoo.store.run_folder import RunFolder

CONFIG = {"objective": {"name": "x"}, "task": {"name": "sort"}, "train": {"steps": 3}, "seed": 0}
LINE = {"kind": "train", "step": 1}
ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from rlzoo.store.lock import hold
lock = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def elsewhere(path: Path) -> subprocess.Popen[str]:
    """Start a process that holds the folder's lock, and wait until it does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_folder_that_another_process_writes_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    process = elsewhere(tmp_path)
    try:
        with pytest.raises(UserError, match=rf"being written by another process \(pid {process.pid}\).*--out"):
            RunFolder.create(tmp_path, CONFIG, resume=True)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    RunFolder.create(tmp_path, CONFIG).log(LINE)


def test_a_second_comparison_in_one_folder_is_refused_before_it_writes(tmp_path: Path) -> None:
    """Each would write its own comparison.json and table; here before task and model are loaded."""
    config = CompareConfig(objectives=("grpo", "dapo"), backbone={"model": "nothing"})
    process = elsewhere(tmp_path)
    try:
        for resume in (False, True):
            with pytest.raises(UserError, match=rf"being written by another process \(pid {process.pid}\).*--out"):
                compare(config, tmp_path, resume=resume)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    finally:
        process.kill()
        process.wait()


def test_one_process_may_hold_a_folder_more_than_once_and_lets_go_with_the_last(tmp_path: Path) -> None:
    first, second = hold(tmp_path), hold(tmp_path)
    assert first is second
    del first, second
    gc.collect()
    elsewhere(tmp_path).kill()


def test_the_lock_outlives_whatever_a_shell_s_star_deletes_in_the_folder(tmp_path: Path) -> None:
    process = elsewhere(tmp_path)
    try:
        (tmp_path / "config.json").touch()
        subprocess.run("rm *", shell=True, cwd=tmp_path, check=True)
        with pytest.raises(UserError, match="being written by another process"):
            hold(tmp_path)
    finally:
        process.kill()


def test_reading_needs_no_lock(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).log(LINE)
    gc.collect()
    process = elsewhere(tmp_path)
    try:
        assert RunFolder.open(tmp_path).read_metrics() == [LINE]
    finally:
        process.kill()


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A folder from somebody else must not make us create or truncate a file elsewhere."""
    there, folder = tmp_path / "there", tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(there)
    for lock in (lambda: RunFolder.create(folder, CONFIG), lambda: hold_whole(folder)):
        with pytest.raises(UserError, match="could not lock"):
            lock()
    there.write_text("mine")
    with pytest.raises(UserError, match="could not lock"):
        hold_whole(folder)
    assert there.read_text() == "mine"
