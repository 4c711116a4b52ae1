"""One writer per folder: an advisory lock on its file `.lock`, which the system releases when the process ends.

Where the writers of a folder are on many machines, a lease takes its place (`rlzoo.store.lease`); each of the two is
refused while somebody has the other.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from rlzoo.errors import UserError
from rlzoo.store.files import make_folder
from rlzoo.store.lease import LEASE, Lease

LOCK = ".lock"
"""The file stays when the lock is released: another process may be waiting for it."""


def hold(path: Path) -> FileLock:
    """Lock a folder against other processes for as long as the returned object lives.

    Within one process a folder may be held more than once: all holders share one object.

    Raises:
        UserError: another process holds it.
        OSError: the lock file cannot be written, is a link, or the file system knows no locks.
    """
    lock = FileLock(path.resolve() / LOCK, blocking=False, is_singleton=True, thread_local=False)
    if not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            writer = _holder(path / LOCK)
            raise UserError(
                f"{path} is being written by another process{f' (pid {writer})' if writer else ''}. "
                "Wait for it or stop it, or name another folder with --out."
            ) from None
        if (path / LEASE).exists():
            Lease(path).release()
    return lock


def lease(path: Path) -> Lease:
    """Take the lease of a folder, against other processes on any machine.

    Raises:
        UserError: another process holds it, or a process of this machine has locked the folder.
        OSError: the folder cannot be written.
    """
    with contextlib.suppress(OSError):  # a file system without locks
        hold(path)
    return Lease(path)


def hold_whole(path: Path, shared: bool = False) -> FileLock | Lease:
    """Make a folder if it is not there, and lock it: one comparison in a folder at a time.

    Args:
        shared: take its lease instead: its runs are written by other machines.

    Raises:
        UserError: it cannot be made or locked, or another process holds it.
    """
    make_folder(path)
    try:
        return lease(path) if shared else hold(path)
    except OSError as error:
        raise UserError(f"could not lock {path}: {error.strerror}. Name another folder with --out.") from error


def _holder(path: Path) -> int | None:
    """Return the process that holds a lock, if the kernel tells: `1: FLOCK ADVISORY WRITE 1234 fe:01:5678 0 EOF`."""
    try:
        inode = str(path.stat().st_ino)
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    rows = [line.split() for line in lines if " FLOCK " in line and "->" not in line]
    return next((int(row[4]) for row in rows if row[5].rpartition(":")[2] == inode), None)
