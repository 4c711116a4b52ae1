"""The folder of one run: everything that a kill must not lose and a reader may want.

    config.json        the resolved configuration         samples.jsonl   prompts with sampled responses
    environment.json   versions, commit, hardware         state.pt        the checkpoint
    metrics.jsonl      one JSON object per record         adapter/        the LoRA adapter in PEFT's format
    summary.json       the outcome                        curves.png      learning curves

The rule of resuming: the checkpoint remembers how long the two logs were when it was made, and loading it cuts them
back to that length. So checkpoint and logs agree, whatever was killed when, and a resumed run writes the records that
an uninterrupted one would have written. A folder has one writer at a time (see `rlzoo.store.lock`).
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from rlzoo.errors import UserError
from rlzoo.store.lock import LOCK, FolderLock, hold
from rlzoo.store.provenance import environment

CONFIG, ENVIRONMENT, SUMMARY = "config.json", "environment.json", "summary.json"
METRICS, SAMPLES, STATE, CURVES, ADAPTER = "metrics.jsonl", "samples.jsonl", "state.pt", "curves.png", "adapter"
LOGS = (METRICS, SAMPLES)
REPORT = "report.html"  # of a comparison, or of one run
PARTIAL = ".partial"  # suffix of a file that is being written; readers never look at it


class RunFolder:
    """One run's folder. Make it with `create` (to write) or `open` (to read)."""

    lock: FolderLock
    """Only in a folder that was made to write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | Path, config: dict[str, Any], resume: bool = False) -> RunFolder:
        """Make the folder, or take up the one that is there.

        With `resume`, a folder that does not exist yet is made: the same command starts a run and continues it. A
        folder without a record, left by a run that could not begin, is nobody's: it is taken over.

        Args:
            path: where; parents are made.
            config: the resolved configuration, as JSON types.
            resume: continue what is there instead of refusing it.

        Raises:
            UserError: the folder is in use and `resume` is false; it holds another configuration; it cannot be written;
                another process is writing it.
        """
        folder = cls(Path(path))
        config = json.loads(json.dumps(config))  # tuples become lists: what is compared is what is stored
        with folder.safely("make the folder"):
            folder.path.mkdir(parents=True, exist_ok=True)
            present = sorted(p.name for p in folder.path.iterdir() if p.suffix != PARTIAL and p.name != LOCK)
        if CONFIG not in present and present:
            raise UserError(
                f"{folder.path} is not empty and holds no run ({CONFIG} is missing; there is {present[0]}). "
                "Name another folder with --out."
            )
        with folder.safely("lock the folder"):
            folder.lock = hold(folder.path)
        if folder.began:
            if not resume:
                raise UserError(
                    f"{folder.path} already holds a run. Continue it with --resume, or name another folder with --out."
                )
            refuse_differences(folder.path, folder.read_json(CONFIG), config)
        now = environment()
        if ENVIRONMENT in present:
            now["earlier"] = [*folder.read_json(ENVIRONMENT).pop("earlier", []), folder.read_json(ENVIRONMENT)]
            now["earlier"][-1].pop("earlier", None)
        folder.write_json(CONFIG, config)
        folder.write_json(ENVIRONMENT, now)
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Return an existing run's folder, to read from. Raises UserError where there is none."""
        if not (Path(path) / CONFIG).is_file():
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}.")
        return cls(Path(path))

    @property
    def began(self) -> bool:
        """Whether there is anything to lose: a record, or a checkpoint."""
        return _length(self.path / METRICS) > 0 or (self.path / STATE).exists()

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl. A number that is not finite is written as null: JSON has no NaN."""
        self._append(METRICS, [record])

    def log_samples(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records to samples.jsonl, one line each."""
        self._append(SAMPLES, records)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the records of metrics.jsonl, also while it is being written: an unfinished last line is left out."""
        return read_lines(self.path / METRICS)

    def write_json(self, name: str, value: Any) -> None:
        """Write one JSON file, whole or not at all."""
        self.write_text(name, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write one text file, whole or not at all."""
        self._replace(name, lambda file: file.write(text.encode()))

    def read_json(self, name: str) -> Any:
        """Return the content of one JSON file of the folder."""
        return json.loads((self.path / name).read_text())

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the checkpoint, whole or not at all: tensors, numbers, strings and containers of these.

        Returns when checkpoint and logs are on the disk, so that a power cut cannot separate them.
        """
        for name in LOGS:
            self._sync(self.path / name)
        lengths = {name: _length(self.path / name) for name in LOGS}
        self._replace(STATE, lambda file: torch.save({"state": state, "lengths": lengths}, file))

    def load_state(self) -> dict[str, Any] | None:
        """Return the last checkpoint (on the CPU) and cut the logs back to it; None and empty logs if there is none.

        Raises:
            UserError: the checkpoint cannot be read, or a log is shorter than the checkpoint remembers.
        """
        path = self.path / STATE
        state, lengths = None, dict.fromkeys(LOGS, 0)
        if path.exists():
            try:
                saved = torch.load(path, map_location="cpu", weights_only=True)
                state, lengths = saved["state"], saved["lengths"]
            except Exception as error:  # torch raises many kinds; each means that this is not a file of ours
                raise UserError(
                    f"{path} cannot be read as a checkpoint ({error}). Start again in another folder."
                ) from error
        for name, length in lengths.items():
            if _length(self.path / name) < length:
                raise UserError(
                    f"{self.path / name} is shorter than when the checkpoint was made: it was edited or lost. "
                    f"Put it back, or start again in another folder."
                )
        with self.safely("cut the logs back to the checkpoint"):
            for name, length in lengths.items():
                if _length(self.path / name) > length:
                    os.truncate(self.path / name, length)
        return state

    def _append(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        lines = [json.dumps(finite(r), ensure_ascii=False, allow_nan=False) + "\n" for r in records]
        # One unbuffered write: once it returns, the lines outlive this process however it ends.
        with self.safely(f"write {name}"), open(self.path / name, "ab", buffering=0) as file:
            _write_all(file, "".join(lines).encode())

    def _replace(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        partial = self.path / (name + PARTIAL)
        with self.safely(f"write {name}"):
            try:
                with open(partial, "wb") as file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            os.replace(partial, self.path / name)
            self._sync(self.path)

    def _sync(self, path: Path) -> None:
        """Have the disk keep what the operating system was told; of a folder: its list of names."""
        if not path.exists() or (path.is_dir() and os.name == "nt"):
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def safely(self, action: str) -> Iterator[None]:
        """Turn a failure of the disk into what the user needs: what failed, what is safe, what to do."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch.save hides the failed write
            if not isinstance(cause, OSError):
                raise
            full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else cause.strerror or str(cause)
            if (self.path / STATE).exists():
                remedy = (
                    "The last checkpoint is safe: "
                    + ("free some space" if full else "mend that")
                    + " and continue with --resume."
                )
            else:
                remedy = ("Free some space" if full else "Mend that") + ", or name another folder with --out."
            raise UserError(f"could not {action} in {self.path}: {reason}. {remedy}") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file, [] if there is none; a last line without its end is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _write_all(file: Any, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def finite(value: Any) -> Any:
    """Return a JSON value with every number that JSON cannot hold (nan, inf) replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def refuse_differences(path: Path, stored: Any, asked: Any) -> None:
    """Raise UserError naming each setting that differs, with both values."""
    rows = [f"  {key}: {there} in the folder, {here} asked for" for key, there, here in _differences(stored, asked)]
    if rows:
        raise UserError(
            f"{path} holds a run with another configuration:\n" + "\n".join(rows) + "\n"
            "Continue with the settings of the folder, or start a new run in another one with --out."
        )


def _differences(stored: Any, asked: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*stored, *asked]):
            where = f"{prefix}.{key}" if prefix else key
            if key not in stored or key not in asked:
                yield where, *("not set" if key not in side else json.dumps(side[key]) for side in (stored, asked))
            else:
                yield from _differences(stored[key], asked[key], where)
    elif stored != asked:
        yield prefix, json.dumps(stored), json.dumps(asked)
