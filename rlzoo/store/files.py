"""Reading and writing one file of a folder that may come from somebody else.

Writes are atomic, stay inside the named folder, and replace regular files only: no symbolic link below that folder is
followed, no device is replaced. Only regular files are read, as UTF-8.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from rlzoo.errors import UserError

OBJECT_STORES = {"s3", "gs", "gcs", "abfs", "abfss", "az", "hdfs", "oci"}
PARTIAL = ".partial"
"""Suffix of a file that is being written; readers ignore it."""


def replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file and move it into place, so that readers see the old file or the new one.

    Raises:
        UserError: what is there is a link, a device or a folder.
        OSError: the disk refuses.
    """
    refuse_odd(path)
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)  # of a kill; or a trap: what was there is never opened
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append(path: Path, data: bytes) -> None:
    """Add bytes to a file by unbuffered writes: once it returns, they outlive this process however it ends.

    Raises:
        UserError: what is there is a link, a device or a folder.
        OSError: the disk refuses.
    """
    refuse_odd(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags, 0o666), "ab", buffering=0) as file:
        while data:
            data = data[file.write(data) :]


def refuse_odd(path: Path) -> None:
    """Raise UserError where something is that is not a regular file; nothing being there is fine."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        what = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder"}.get(stat.S_IFMT(mode), "no regular file")
        raise UserError(
            f"{path} is {what}: only a regular file is written or replaced. Name another file, or remove it"
        )


def inside(root: Path, *names: str) -> Path:
    """Return the path of `names` below `root`, where something may be written.

    Raises:
        UserError: a name or a symbolic link leads out of `root`. `root` itself may be a link.
    """
    path = root.joinpath(*names)
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{path} leads out of {root}, to {path.resolve()}: nothing is written there. Remove the link")
    return path


def make_folder(path: Path) -> Path:
    """Make a folder and its parents, or take the one that is there.

    Raises:
        UserError: it cannot be made: too long, not a folder, no right to, in an object store.
    """
    if path.parts[:1] and path.parts[0].removesuffix(":") in OBJECT_STORES:
        raise UserError(
            f"{path.parts[0]}// is an object store, and run folders need a file system: mount the bucket (s3fs, "
            "gcsfuse, blobfuse), and name the mounted folder with --out"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a NUL or half a character in a name is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"could not make the folder {str(path)[:200]!r}: {reason}. Name another folder with --out."
        ) from error
    return path


def sync(path: Path) -> None:
    """Flush a file to disk (fsync); for a folder: its list of names."""
    if not path.exists() or (path.is_dir() and os.name == "nt"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def length(path: Path) -> int:
    """Return the bytes of a regular file, 0 without one."""
    return path.stat().st_size if path.is_file() else 0


def sha256(path: Path, size: int) -> Any:
    """Return the running SHA-256 of the first `size` bytes of a file."""
    running = hashlib.sha256()
    if size:
        with open(path, "rb") as file:
            while size and (block := file.read(min(size, 1 << 20))):
                running.update(block)
                size -= len(block)
    return running


def read_bytes(path: Path) -> bytes:
    """Return what a regular file holds.

    Raises:
        UserError: it is not there, not a regular file (a pipe would wait for ever), or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no regular file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: it is not there, or is not JSON in UTF-8; the message has the place.
    """
    return parse_json(read_bytes(path), str(path))


def parse_json(data: bytes, where: str) -> Any:
    """Return the value of a JSON text in UTF-8; `where` begins the error."""
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise UserError(f"{where} is nested too deep to be read as JSON") from None
    except ValueError as error:  # of bad UTF-8, bad JSON, and a number with too many digits
        raise UserError(f"{where} is not JSON in UTF-8: {error}") from error
