"""A table of the laboratory: rows of numbers, the arithmetic behind them, a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlzoo.lab.plots import Plot

Cell = str | float | int


@dataclass(frozen=True)
class Sheet:
    """One computed table.

    Attributes:
        columns: headings, the first one that of the rows' names.
        arithmetic: the calculation, line by line, with its numbers.
        reading: what the table shows, in a sentence or two.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    arithmetic: Sequence[str]
    reading: str
    plot: Plot

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Entry:
    """A table by name, before it is computed."""

    name: str
    title: str
    source: str
    compute: Callable[[], Sheet]


SHEETS: dict[str, Entry] = {}
"""All tables, in the order in which they are told."""


def sheet(name: str, title: str, source: str) -> Callable[[Callable[[], Sheet]], Callable[[], Sheet]]:
    """Register a table under its name."""

    def register(compute: Callable[[], Sheet]) -> Callable[[], Sheet]:
        if name in SHEETS:
            raise ValueError(f"table {name!r} exists already")
        SHEETS[name] = Entry(name, title, source, compute)
        return compute

    return register
