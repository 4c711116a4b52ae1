"""A table of the laboratory: rows of numbers, their arithmetic, and a figure."""

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
        columns: headings; the first is that of the rows' names.
        rows: a name, then one cell per further column.
        arithmetic: the calculation with its numbers, line by line.
        reading: the result in a sentence or two.
        plot: data of the figure.
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
    """A registered table, before it is computed."""

    name: str
    title: str
    source: str
    compute: Callable[[], Sheet]


SHEETS: dict[str, Entry] = {}
"""All tables, in order of presentation."""


def sheet(name: str, title: str, source: str) -> Callable[[Callable[[], Sheet]], Callable[[], Sheet]]:
    """Register a table under its name.

    Raises:
        ValueError: the name is taken.
    """

    def register(compute: Callable[[], Sheet]) -> Callable[[], Sheet]:
        if name in SHEETS:
            raise ValueError(f"table {name!r} exists already")
        SHEETS[name] = Entry(name, title, source, compute)
        return compute

    return register
