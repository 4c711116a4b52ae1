"""The folder of one run: its configuration, records, samples, checkpoint and outcome.

    config.json        the resolved configuration         samples.jsonl   prompts with sampled responses
    environment.json   versions, commit, hardware         state.pt        the checkpoint
    metrics.jsonl      one JSON object per record         adapter/        the LoRA adapter in PEFT's format
    summary.json       the outcome                        curves.png      learning curves

Resuming: the checkpoint stores the lengths of the two logs, and loading it truncates them to these lengths. So
checkpoint and logs agree after a kill at any time, and a resumed run writes the records that an uninterrupted one would
have written. A folder has one writer at a time (see `rlzoo.store.lock`).
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock

from rlzoo.errors import UserError
from rlzoo.store import files, records
from rlzoo.store.differences import names_in, refuse_differences
from rlzoo.store.files import PARTIAL
from rlzoo.store.lease import Lease
from rlzoo.store.lock import hold
from rlzoo.store.provenance import environment

CONFIG, ENVIRONMENT, SUMMARY, COMPARISON = "config.json", "environment.json", "summary.json", "comparison.json"
METRICS, SAMPLES, STATE, CURVES, ADAPTER = "metrics.jsonl", "samples.jsonl", "state.pt", "curves.png", "adapter"
BEFORE = "before.pt"
"""The checkpoint before the last, of a run whose fleet has not ended: state.pt as it was."""
CRITIC = "critic"
"""Folder of a critic adapter, in the same format as the policy's."""
LOGS = {METRICS: records.Record, SAMPLES: records.Sample}
MODELS = {
    CONFIG: records.Config,
    ENVIRONMENT: records.Environment,
    SUMMARY: records.Summary | records.Outcome,
    COMPARISON: records.Comparison,
}
"""File -> what it holds."""
REPORT = "report.html"  # of a comparison, or of one run


class RunFolder:
    """One run's folder. Make it with `create` (to write) or `open` (to read)."""

    lock: FileLock | Lease | None = None
    """Only in a folder that was made to write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sums: dict[str, tuple[int, Any]] = {}

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: dict[str, Any],
        resume: bool = False,
        lock: Callable[[Path], FileLock | Lease] = hold,
    ) -> RunFolder:
        """Create the folder, or open the existing one.

        With `resume`, a missing folder is created, so the same command starts a run and continues it. An existing
        folder without a record, left by a run that could not begin, is reused.

        Args:
            path: the folder; parents are created.
            config: the resolved configuration, as JSON types.
            resume: continue an existing run instead of refusing the folder.
            lock: what takes the right to write, see `rlzoo.store.lock`.

        Raises:
            UserError: the folder is in use and `resume` is false; it holds another configuration; it cannot be written;
                another process is writing it.
        """
        folder = cls(Path(path))
        config = json.loads(json.dumps(config))  # tuples become lists: what is compared is what is stored
        files.make_folder(folder.path)
        with folder.safely("read the folder"):
            present = names_in(folder.path, CONFIG)
        with folder.safely("lock the folder"):
            folder.lock = lock(folder.path)
        folder.refuse_taken(config, resume)
        now = environment()
        if ENVIRONMENT in present:
            before = folder.read_json(ENVIRONMENT)
            now["earlier"] = [*before.pop("earlier", []), before]
        with folder.safely("remove what a kill has left"):
            folder.clean()
        folder.write_json(CONFIG, config)
        folder.write_json(ENVIRONMENT, now)
        return folder

    def refuse_taken(self, config: dict[str, Any], resume: bool) -> None:
        """Raise `UserError` if a run began here and is not to be continued, or has another configuration."""
        if self.began and not resume:
            raise UserError(
                f"{self.path} already holds a run. Continue it with --resume, or name another folder with --out."
            )
        if self.began:
            refuse_differences(self.path, self.read_json(CONFIG), config)

    def note_environment(self, **facts: Any) -> None:
        """Add facts that become known after the folder was made to environment.json."""
        self.write_json(ENVIRONMENT, self.read_json(ENVIRONMENT) | facts)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Return an existing run's folder, to read from. Raises UserError where there is none."""
        try:
            there = (Path(path) / CONFIG).is_file()
        except (OSError, ValueError):  # a path too long, or with a NUL
            there = False
        if not there:
            raise UserError(f"{path} is not a run folder: it has no {CONFIG}.")
        return cls(Path(path))

    @property
    def began(self) -> bool:
        """Whether the folder has a record or a checkpoint."""
        return files.length(self.path / METRICS) > 0 or (self.path / STATE).exists()

    def clean(self) -> None:
        """Remove the leftovers of a kill: partly written files and adapter folders."""
        for path in self.leftovers():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def leftovers(self) -> list[Path]:
        """Return the leftovers of a kill: partly written files and adapter folders."""
        partial = [*self.path.glob("*" + PARTIAL), *self.path.glob("checkpoint-*/*" + PARTIAL)]
        adapters = [*self.path.glob("checkpoint-*/*"), self.path / ADAPTER, self.path / CRITIC]
        halves = [path for folder in adapters if not folder.is_symlink() for path in folder.glob("tmp*")]
        return [path for path in [*partial, *halves] if not path.parent.is_symlink()]

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
        """Write one JSON file, whole or not at all, through its model if it has one."""
        value = finite(value)
        if name in MODELS:
            records.checked(MODELS[name], value, self.path / name)
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write one text file, whole or not at all. Half characters, which no file can hold, become question marks."""
        self._replace(name, lambda file: file.write(text.encode("utf-8", "replace")))

    def read_json(self, name: str) -> Any:
        """Return the content of one JSON file of the folder, read through its model if it has one.

        Raises:
            UserError: it is not there, is not JSON, or does not fit its model.
        """
        value = files.read_json(self.path / name)
        return records.checked(MODELS[name], value, self.path / name) if name in MODELS else value

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the checkpoint, whole or not at all: tensors, numbers, strings and containers of these.

        Returns when checkpoint and logs are on the disk, so that a power cut cannot separate them. It remembers length
        and SHA-256 of both logs; its own tensors have the CRC-32 of the zip file that torch writes. The checkpoint that
        there was is kept aside until `forget_before`.
        """
        beginning = {"state": None, "lengths": dict.fromkeys(LOGS, 0), "digests": {}}
        whole = (self.path / STATE).read_bytes() if (self.path / STATE).exists() else None
        self._replace(BEFORE, lambda file: torch.save(beginning, file) if whole is None else file.write(whole))
        for name in LOGS:
            files.sync(self.path / name)
        sums = {name: self._digest(name) for name in LOGS}
        saved = {
            "state": state,
            "lengths": {name: length for name, (length, _) in sums.items()},
            "digests": {name: running.hexdigest() for name, (_, running) in sums.items()},
        }
        self._replace(STATE, lambda file: torch.save(saved, file))

    def go_back(self) -> None:
        """Put the checkpoint before the last in the place of the last; see `load_state` for the logs."""
        state = self.read_state(BEFORE)
        if state is None or state["state"] is None:
            (self.path / STATE).unlink(missing_ok=True)
        else:
            whole = (self.path / BEFORE).read_bytes()
            self._replace(STATE, lambda file: file.write(whole))
        self.forget_before()

    def forget_before(self) -> None:
        """Remove the checkpoint before the last: nobody goes back to it."""
        (self.path / BEFORE).unlink(missing_ok=True)

    def load_state(self) -> dict[str, Any] | None:
        """Return the last checkpoint (on the CPU) and cut the logs back to it; None and empty logs if there is none.

        Raises:
            UserError: the checkpoint is damaged or would run code, or a log is not what the checkpoint remembers.
        """
        saved = self.read_state()
        lengths = dict.fromkeys(LOGS, 0) if saved is None else saved["lengths"]
        with self.safely("cut the logs back to the checkpoint"):
            for name in LOGS:
                if files.length(self.path / name) > lengths[name]:
                    files.refuse_odd(self.path / name)
                    os.truncate(self.path / name, lengths[name])
        self._sums.clear()
        return None if saved is None else saved["state"]

    def read_state(self, name: str = STATE) -> dict[str, Any] | None:
        """Return what a checkpoint's file holds, None without one, having checked it and the logs; change nothing.

        Raises:
            UserError: as `load_state`.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} is wrong: the file is damaged")
            saved = torch.load(path, map_location="cpu", weights_only=True)
            lengths, digests = {n: int(saved["lengths"][n]) for n in LOGS}, saved.get("digests", {})
            saved = {"state": saved["state"], "lengths": lengths, "digests": digests}
        except Exception as error:  # torch raises many kinds; each means that this is not a file of ours
            reason = "it holds code, which is never run" if "Weights only load failed" in str(error) else error
            raise UserError(
                f"{path} cannot be read as a checkpoint ({reason}). Put back a copy, or start again in another folder."
            ) from error
        for name, length in lengths.items():
            if files.length(self.path / name) < length:
                raise UserError(
                    f"{self.path / name} is shorter than when the checkpoint was made: it was edited or lost. "
                    f"Put it back, or start again in another folder."
                )
            if name in digests and files.sha256(self.path / name, length).hexdigest() != digests[name]:
                raise UserError(
                    f"{self.path / name} is not what it was when the checkpoint was made: it was edited or damaged. "
                    f"Put it back, or start again in another folder."
                )
        return saved

    def checksums(self, *names: str) -> dict[str, str]:
        """Return file -> SHA-256 of all files in and below some folders of it."""
        found = [path for name in names for path in sorted((self.path / name).rglob("*")) if path.is_file()]
        return {str(path.relative_to(self.path)): files.sha256(path, files.length(path)).hexdigest() for path in found}

    def changed(self, stored: dict[str, str]) -> Iterator[str]:
        """Yield a sentence for each file that is missing or has another SHA-256 than was stored."""
        for name, digest in sorted(stored.items()):
            path = files.inside(self.path, name)
            if not path.is_file():
                yield f"{path} is missing"
            elif files.sha256(path, files.length(path)).hexdigest() != digest:
                yield f"{path} is not what was written: its checksum differs"

    def _append(self, name: str, lines: Iterable[dict[str, Any]]) -> None:
        rows = [records.checked(LOGS[name], finite(row), f"a record for {self.path / name}") for row in lines]
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        data = text.encode("utf-8", "replace")
        with self.safely(f"write {name}"):
            length, running = self._digest(name)
            files.append(self.path / name, data)
            running.update(data)
            self._sums[name] = (length + len(data), running)

    def _digest(self, name: str) -> tuple[int, Any]:
        """Length of a log and its running SHA-256, read from the file where it is not known."""
        length = files.length(self.path / name)
        known = self._sums.get(name)
        if known is None or known[0] != length:
            known = self._sums[name] = (length, files.sha256(self.path / name, length))
        return known

    def _replace(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        with self.safely(f"write {name}"):
            files.replace(self.path / name, write)

    @contextmanager
    def safely(self, action: str) -> Iterator[None]:
        """Turn a disk error into a `UserError` that says what failed, what is safe and what to do."""
        if isinstance(self.lock, Lease):
            self.lock.check()
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
    """Return the objects of a JSON-lines file, [] if there is none; a last line without its end is left out.

    Raises:
        UserError: a line is not JSON or does not fit the file's model; the message has its number.
    """
    if not path.exists():
        return []
    kind = LOGS.get(path.name, dict[str, Any])
    lines = files.read_bytes(path).split(b"\n")[:-1]
    numbered = [(f"{path}, line {n}", line) for n, line in enumerate(lines, start=1)]
    return [records.checked(kind, files.parse_json(line, where), where) for where, line in numbered]


def finite(value: Any) -> Any:
    """Return a JSON value with every number that JSON cannot hold (nan, inf) replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
