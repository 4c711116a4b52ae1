"""Rows of data that stay on disk: the position of each line of a file, and two numbers per row.

hash [N] uint64   of the prompt, which decides the split      size [N] int64   of the prompt, in bytes
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlzoo.errors import UserError

PER_MESSAGE = 64
"""Allowance in bytes per chat message for its role and template."""


class Rows(Protocol):
    """A list of mappings, or a `datasets.Dataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


class LinesOfFile:
    """The objects of a JSON-lines file, each read from disk on access; blank lines are skipped.

    A line ends only at a line feed: U+2028 and similar characters may occur raw in JSON. The file is read once at
    construction, and `look` is called with every object and a description of its place.

    Raises:
        UserError: no such file, or a line (its number is given) that is not a JSON object in UTF-8.
    """

    def __init__(self, path: Path, task: str, look: Callable[[dict[str, Any], str], None]) -> None:
        self.path = path
        start, end, number = array("q"), array("q"), array("q")
        place = 0
        try:
            self._file = open(path, "rb")  # noqa: SIM115  held while the task lives
            for n, line in enumerate(self._file, start=1):
                if not line.isspace():
                    where = f"{path}, line {n}"
                    look(parse(line, where), where)
                    start.append(place)
                    end.append(place + len(line))
                    number.append(n)
                place += len(line)
        except UserError:
            raise
        except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"task {task!r}: cannot read {path}: {reason} (paths count from the working folder, {Path.cwd()})"
            ) from error
        self._start, self._end, self._number = start, end, number

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        start = self._start[index]
        data = os.pread(self._file.fileno(), self._end[index] - start, start)
        return parse(data, f"{self.path}, line {self._number[index]}")


def parse(data: bytes, where: str) -> dict[str, Any]:
    """Return the object of one line.

    Raises:
        UserError: it is not UTF-8, not JSON, too deep, has a number of too many digits, or is no object.
    """
    try:
        row = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise UserError(f"{where}: nested too deep to be read as JSON") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        shown = data.decode("utf-8").strip()[:60]
        raise UserError(f"{where}: a JSON object is needed, with a prompt and an answer; this is {shown!r}")
    return row


@dataclass(frozen=True)
class Picked:
    """Some of the rows, in order."""

    rows: Rows
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> Mapping[str, Any]:
        return self.rows[int(self.index[place])]


class Survey:
    """Hash and size of every prompt of a table; each prompt is added once, in order."""

    def __init__(self) -> None:
        self._hash, self._size = array("Q"), array("q")

    def add(self, prompt: Any) -> None:
        """Add the next row's prompt, as stored in the data."""
        text = json.dumps(prompt, sort_keys=True, default=str)
        self._hash.append(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big"))
        self._size.append(prompt_bytes(prompt))

    @property
    def size(self) -> NDArray[np.int64]:
        """Bytes of each prompt."""
        return np.frombuffer(self._size, dtype=np.int64) if self._size else np.zeros(0, dtype=np.int64)

    def held_out(self, fraction: float) -> NDArray[np.bool_]:
        """Which rows are the test split: those of the prompts with the smallest hashes, rounded up.

        Rows with the same prompt stay together; the order of the rows plays no part.
        """
        if not self._hash:
            return np.zeros(0, dtype=np.bool_)
        hashes = np.frombuffer(self._hash, dtype=np.uint64)
        distinct = np.unique(hashes)
        return hashes <= distinct[math.ceil(fraction * len(distinct)) - 1]


def prompt_bytes(prompt: Any) -> int:
    """Bytes of a text, or of a chat's contents with an allowance for each message's frame."""
    if isinstance(prompt, str):
        return len(prompt.encode("utf-8", "surrogatepass"))
    if isinstance(prompt, Sequence):
        contents = [str(one.get("content", "")) if isinstance(one, Mapping) else str(one) for one in prompt]
        return sum(len(content.encode("utf-8", "surrogatepass")) + PER_MESSAGE for content in contents)
    return 0
