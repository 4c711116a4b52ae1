"""Reward functions in the field's signature, for the tests of the loop."""

from __future__ import annotations

import multiprocessing
from typing import Any


def one(completions: list[str], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def unknown(completions: list[str], **_: Any) -> list[None]:
    return [None] * len(completions)


def unknown_where_wrong(completions: list[str], **_: Any) -> list[float | None]:
    """A parser that gives up on what it cannot read: no reward where the task's own verdict is 0."""
    return [1.0 if c and ord(c[0]) % 2 == 0 else None for c in completions]


def every_second_unknown(completions: list[str], **_: Any) -> list[float | None]:
    return [None if i % 2 else float(ord((c or "!")[0]) % 2) for i, c in enumerate(completions)]


def fails_elsewhere(completions: list[str], **_: Any) -> list[float]:
    """In a process that another one made."""
    return [1.0 if multiprocessing.parent_process() is None else 1 / 0 for _ in completions]
