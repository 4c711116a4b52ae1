"""One writer per folder where writers run on many machines: a lease, a file in the folder that its holder renews.

    holder   renews every SECONDS / 6; before it writes it makes sure that its last renewal is younger than SECONDS / 2
    taker    watches an existing lease for SECONDS, by its own clock, and takes it over if it is not renewed meanwhile

No two clocks are compared, and no lock of the file system is needed, which shared ones often lack. A holder that was a
process of this machine and has ended is taken over at once. A holder that stood still for so long that it lost its
lease finds another token in the file, and writes no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from rlzoo.errors import UserError
from rlzoo.store.files import PARTIAL

LEASE = ".lease.json"
SECONDS = 30.0
POLL = 0.2
"""Seconds between two looks at a lease that may be renewed."""


class Leased(UserError):
    """Another process has the lease, and renews it."""


class Lease:
    """The right to write into a folder, held until `release`, or `SECONDS` after the process has ended."""

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        """Take the lease; wait for one that is silent to run out.

        Raises:
            Leased: it is renewed by another process all the time.
            OSError: the folder cannot be written.
        """
        self.path, self.seconds = path / LEASE, SECONDS if seconds is None else seconds
        self.token, self.beat, self.lost = uuid.uuid4().hex, 0, False
        self.renewed = -float("inf")
        self._busy = threading.Lock()
        until = time.monotonic() + 2 * self.seconds
        while not self._create():
            held = self._read()
            if held is not None and not _has_ended(held):
                held = self._wait_for_silence(held, until)
            if held is not None:
                self._remove(held)
        _keep(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that the lease is still this object's.

        Raises:
            UserError: another process has taken it over.
        """
        if self.lost or time.monotonic() - self.renewed > self.seconds / 2:
            self.renew()
        if self.lost:
            raise UserError(
                f"{self.path.parent} was taken over by another process while this one stood still: nothing more is "
                "written here. Continue with --resume"
            )

    def renew(self) -> None:
        """Write the next beat, if the lease is still this object's. A file system that fails is tried again later."""
        with self._busy, contextlib.suppress(OSError):
            held = self._read()
            if held is None or held.get("token") != self.token:
                self.lost = True
            elif not self.lost:
                now, self.beat = time.monotonic(), self.beat + 1
                partial = self.path.with_name(f"{LEASE}.{self.token}{PARTIAL}")
                partial.write_text(self._content(), encoding="utf-8")
                os.replace(partial, self.path)
                self.renewed = now

    def release(self) -> None:
        """Give the lease up."""
        _held.discard(self)
        with self._busy:
            held = None if self.lost else self._read()
            if held is not None and held.get("token") == self.token:
                self.path.unlink(missing_ok=True)
            self.lost = True

    def _create(self) -> bool:
        now = time.monotonic()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(self._content())
        self.renewed = now
        return True

    def _content(self) -> str:
        return json.dumps({"token": self.token, "beat": self.beat, **_this_process()})

    def _read(self, path: Path | None = None) -> dict[str, Any] | None:
        """What stands in the file; None without one, {} for one that its holder died over while writing."""
        try:
            value = json.loads((path or self.path).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def _wait_for_silence(self, held: dict[str, Any], until: float) -> dict[str, Any] | None:
        """Return the lease once it has not changed for `seconds` or its holder has ended; None if it is gone."""
        silent_since = time.monotonic()
        while time.monotonic() - silent_since < self.seconds:
            time.sleep(min(POLL, self.seconds / 10))
            now = self._read()
            if now is None or _has_ended(now):
                return now
            if now != held:
                held, silent_since = now, time.monotonic()
            if silent_since > until:
                raise Leased(
                    f"{self.path.parent} is being written by another process (pid {held.get('pid')} on "
                    f"{held.get('host')}). Wait for it or stop it, or name another folder with --out."
                )
        return held

    def _remove(self, held: dict[str, Any]) -> None:
        """Remove the lease that was waited for; of several takers one succeeds, and a fresh lease is put back."""
        aside = self.path.with_name(f"{LEASE}.{self.token}{PARTIAL}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if self._read(aside) != held:
            with contextlib.suppress(FileExistsError):
                os.link(aside, self.path)
        aside.unlink()


_held: WeakSet[Lease] = WeakSet()
"""Leases of this process; one that nobody else refers to runs out."""
_more = threading.Event()
_thread: threading.Thread | None = None


def _keep(lease: Lease) -> None:
    """Have a thread of this process renew a lease until it is released."""
    global _thread
    _held.add(lease)
    _more.set()
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_renew_all, name="leases", daemon=True)
        _thread.start()


def _renew_all() -> None:
    while True:
        _more.wait(min((lease.seconds for lease in _held), default=SECONDS) / 12)
        _more.clear()
        for lease in list(_held):
            if time.monotonic() - lease.renewed > lease.seconds / 6:
                lease.renew()
            del lease


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "began": _began(os.getpid())}


def _has_ended(held: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine, and there is no such process any more."""
    machine = _machine()
    return machine is not None and held.get("machine") == machine and _began(held["pid"]) != held.get("began")


def _machine() -> str | None:
    """This boot of this kernel and this space of process ids: two containers of one machine differ in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """When a process began, in ticks since boot: ids are used again. None if there is none, or only its exit status."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
