"""One writer per folder: an advisory lock that the kernel releases when its holder ends, however that happens."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from weakref import WeakValueDictionary

from rlzoo.errors import UserError

LOCK = ".lock"


class FolderLock:
    """The right to write into a folder, held while the object lives. Make it with `hold`."""

    def __init__(self, path: Path) -> None:
        self.file = open(path / LOCK, "a+")  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            writer = self.file.read().strip()
            self.file.close()
            raise UserError(
                f"{path} is being written by another process{f' ({writer})' if writer else ''}. "
                "Wait for it or stop it, or name another folder with --out."
            ) from None
        self.file.truncate(0)
        self.file.write(f"pid {os.getpid()}\n")
        self.file.flush()

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


_held: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()


def hold(path: Path) -> FolderLock:
    """Lock a folder against other processes. Within one process a folder may be held more than once.

    Raises:
        UserError: another process holds it.
        OSError: the lock file cannot be made.
    """
    key = path.resolve()
    lock = _held.get(key)
    if lock is None:
        lock = _held[key] = FolderLock(path)
    return lock
