"""One look per algorithm, the same in every figure, table and report: by its name, whatever company it is in.

A registered objective takes the look of its place in the registry. What is not registered (an ablation, a control)
takes one that nobody beside it has, in the order of being named.

The colours are Okabe and Ito's, less the yellow that white paper swallows, and four darker ones. No reader has to tell
colours apart: past the end of the palette they come again with other dashes, and neighbours have different markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import objectives

PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#8A8A2B", "#6A4FC4", "#8C510A"),
)
ON_BLACK = (
    *("#4DA3DC", "#F0803C", "#2DC79B", "#E29CC3", "#F0B840", "#8ACDF2", "#FFFFFF"),
    *("#D0679C", "#BDBD52", "#A794F0", "#C99A5B"),
)
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1), (6, 1, 1, 1))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LOOKS = len(PALETTE) * len(DASHES)


@dataclass(frozen=True)
class Look:
    """How an algorithm is drawn: the look of a number, which comes again after `LOOKS`."""

    number: int

    @property
    def colour(self) -> str:
        """Return the colour on white, as #rrggbb."""
        return PALETTE[self.number % len(PALETTE)]

    @property
    def on_black(self) -> str:
        """Return the same hue for a dark background, as #rrggbb."""
        return ON_BLACK[self.number % len(PALETTE)]

    @property
    def dashes(self) -> tuple[float, ...]:
        """Return lengths of dashes and gaps in widths of the line; empty for a line without gaps."""
        return DASHES[self.number // len(PALETTE) % len(DASHES)]

    @property
    def marker(self) -> str:
        """Return matplotlib's name of the marker."""
        return MARKERS[self.number % len(MARKERS)]

    @property
    def line(self) -> dict[str, Any]:
        """Return matplotlib's arguments for the line."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}

    @property
    def ink(self) -> str:
        """Return rich's style for the name: its colour, or the terminal's own where that is black."""
        return "bold" if self.colour == "#000000" else f"bold {self.colour}"


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return the look of each of the algorithms that are shown together."""
    names = list(dict.fromkeys(names))
    registered = objectives.names()
    result = {name: Look(registered.index(name)) for name in names if name in registered}
    free = _free({look.number % LOOKS for look in result.values()}, count=len(names))
    return {name: result.get(name) or Look(next(free)) for name in names}


def _free(taken: set[int], count: int) -> Iterator[int]:
    """Yield numbers of looks that are not taken, first those of colours that nobody has."""
    colours = {number % len(PALETTE) for number in taken}
    numbers = [number for number in range(LOOKS) if number not in taken]
    yield from sorted(numbers, key=lambda number: (number >= len(PALETTE) or number in colours, number))
    yield from range(LOOKS, LOOKS + count)  # more than there are looks: they come again
