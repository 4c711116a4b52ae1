"""One writer per folder: an advisory lock on the folder itself, which the kernel releases when the process ends.

The lock is not a file in the folder, so it cannot be deleted during writing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

from rlzoo.errors import UserError
from rlzoo.store.files import make_folder


class FolderLock:
    """The right to write into a folder, held while the object lives. Make it with `hold`."""

    def __init__(self, path: Path) -> None:
        self.descriptor: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            writer = _holder(self.descriptor)
            self.__del__()
            raise UserError(
                f"{path} is being written by another process{f' (pid {writer})' if writer else ''}. "
                "Wait for it or stop it, or name another folder with --out."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The lock ends with the last reference to it, and the `with` statement's is one."""

    def __del__(self) -> None:
        if getattr(self, "descriptor", None) is not None:
            os.close(self.descriptor)  # type: ignore[arg-type]
            self.descriptor = None


_held: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()


def hold(path: Path) -> FolderLock:
    """Lock a folder against other processes. Within one process a folder may be held more than once.

    Raises:
        UserError: another process holds it.
        OSError: the folder cannot be opened, or its file system knows no locks.
    """
    key = path.resolve()
    lock = _held.get(key)
    if lock is None:
        lock = _held[key] = FolderLock(path)
    return lock


def hold_whole(path: Path) -> FolderLock:
    """Make a folder if it is not there, and lock it: one comparison in a folder at a time.

    Raises:
        UserError: it cannot be made or locked, or another process holds it.
    """
    make_folder(path)
    try:
        return hold(path)
    except OSError as error:
        raise UserError(f"could not lock {path}: {error.strerror}. Name another folder with --out.") from error


def _holder(descriptor: int) -> int | None:
    """The process that holds the lock, where the kernel says so: `1: FLOCK ADVISORY WRITE 1234 fe:01:5678 0 EOF`."""
    inode = str(os.fstat(descriptor).st_ino)
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    rows = [line.split() for line in lines if " FLOCK " in line and "->" not in line]
    return next((int(row[4]) for row in rows if row[5].rpartition(":")[2] == inode), None)
