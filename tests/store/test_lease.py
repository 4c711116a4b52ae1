"""A lease: one holder at a time, taken over once it is silent or its process has ended, and lost by who stood still."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlzoo.errors import UserError
from rlzoo.store import lease as leases
from rlzoo.store import lock
from rlzoo.store.lease import LEASE, Lease
from rlzoo.store.run_folder import RunFolder

CONFIG = {"objective": {"name": "x"}, "task": {"name": "sort"}, "train": {"steps": 3}, "seed": 0}
HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
QUICK = 0.6


def of_another_machine(folder: Path, **changes: object) -> None:
    """A lease that nobody on this machine can know the holder of."""
    told = {"token": "theirs", "beat": 0, "host": "node7", "machine": "other", "pid": 1, "began": "5"} | changes
    (folder / LEASE).write_text(json.dumps(told))


def test_a_lease_is_renewed_until_it_is_released(tmp_path: Path) -> None:
    with Lease(tmp_path, QUICK) as held:
        time.sleep(QUICK)  # three renewals at least, one every QUICK / 6 to QUICK / 4
        assert json.loads((tmp_path / LEASE).read_text())["beat"] >= 2
        with pytest.raises(UserError, match=r"being written by another process \(pid \d+ on"):
            Lease(tmp_path, QUICK)
        held.check()
    assert list(tmp_path.iterdir()) == []
    Lease(tmp_path, QUICK).release()


def test_a_silent_lease_is_taken_over_after_its_time(tmp_path: Path) -> None:
    of_another_machine(tmp_path)
    start = time.monotonic()
    with Lease(tmp_path, QUICK):
        assert QUICK <= time.monotonic() - start < 10 * QUICK
    assert list(tmp_path.iterdir()) == []


def test_half_a_lease_is_taken_over_too(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text('{"tok')
    held = Lease(tmp_path, QUICK)
    assert "token" in json.loads((tmp_path / LEASE).read_text())  # whole, and the new holder's
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_here_holds_nothing(tmp_path: Path) -> None:
    """At once, although the lease would run for half a minute; a later process of its id is another one."""
    code = f"from pathlib import Path; from rlzoo.store.lease import Lease; held = Lease(Path({str(tmp_path)!r})); "
    subprocess.run([sys.executable, "-c", code + "import os; os._exit(0)"], check=True, env=HERE)
    told = json.loads((tmp_path / LEASE).read_text())
    start = time.monotonic()
    Lease(tmp_path).release()
    assert time.monotonic() - start < leases.SECONDS / 3
    of_another_machine(tmp_path, machine=told["machine"], pid=1, began="not when process 1 began")
    Lease(tmp_path).release()
    assert time.monotonic() - start < leases.SECONDS / 3


def test_who_stood_still_finds_another_token_and_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_keep", lambda lease: None)  # it stands still
    folder = RunFolder.create(tmp_path, CONFIG, lock=lambda path: Lease(path, QUICK))
    monkeypatch.undo()
    folder.log({"kind": "train", "step": 1})
    with Lease(tmp_path, QUICK):
        with pytest.raises(UserError, match="taken over by another process"):
            folder.log({"kind": "train", "step": 2})
        with pytest.raises(UserError, match="taken over by another process"):
            folder.write_text("notes.txt", "late")
    assert [record["step"] for record in folder.read_metrics()] == [1]


def test_who_stood_still_for_a_while_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_keep", lambda lease: None)
    held = Lease(tmp_path, QUICK)
    time.sleep(QUICK)  # longer than half of it: whether it is still its own must be read
    held.check()
    assert held.beat == 1


def test_of_lock_and_lease_whoever_comes_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SECONDS", QUICK)
    code = "import sys; from pathlib import Path; from rlzoo.store.lock import hold; held = hold(Path(sys.argv[1])); "
    command = [sys.executable, "-c", code + "print('held', flush=True); input()", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=HERE) as elsewhere:
        assert elsewhere.stdout is not None and elsewhere.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="being written by another process"):
            lock.lease(tmp_path)
        elsewhere.kill()
    with lock.lease(tmp_path), pytest.raises(UserError, match="being written by another process"):
        lock.hold(tmp_path)
    of_another_machine(tmp_path)
    with lock.hold_whole(tmp_path):  # silent: the lock takes its place
        assert not (tmp_path / LEASE).exists()
