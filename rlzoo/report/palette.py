"""One look per algorithm of a page or figure: colour, dashes and marker.

The first eleven algorithms have a colour each; further ones repeat the colours with other dashes. Neighbours have
different markers. Registered objectives come first, in the registry's order, then ablations and controls in the order
of their names' first use. So a look depends on which algorithms are shown, not on the order of the rows.

The colours are Okabe and Ito's and others. Each has a contrast of at least 3 to 1 on its background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import objectives

PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#6A4FC4", "#C2649A", "#000000"),
    *("#B37400", "#3A93C8", "#882255", "#8A8A2B", "#8C510A"),
)
ON_BLACK = (
    *("#4DA3DC", "#F0803C", "#2DC79B", "#A794F0", "#E29CC3", "#FFFFFF"),
    *("#F0B840", "#8ACDF2", "#D0679C", "#BDBD52", "#C99A5B"),
)
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1), (6, 1, 1, 1))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LOOKS = len(PALETTE) * len(DASHES)


@dataclass(frozen=True)
class Look:
    """How an algorithm is drawn; looks repeat after `LOOKS` numbers."""

    number: int

    @property
    def colour(self) -> str:
        """Return the colour on white, as #rrggbb."""
        return PALETTE[self.number % len(PALETTE)]

    @property
    def dashes(self) -> tuple[float, ...]:
        """Return the lengths of dashes and gaps in line widths; empty for a solid line."""
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
        """Return rich's style for the name: its colour; for black the terminal's own."""
        return "bold" if self.colour == "#000000" else f"bold {self.colour}"


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Return the look of each of the algorithms that are shown together."""
    names = list(dict.fromkeys(names))
    registry = objectives.names()
    ordered = sorted(names, key=lambda name: registry.index(name) if name in registry else len(registry))
    numbers = {name: number for number, name in enumerate(ordered)}
    return {name: Look(numbers[name]) for name in names}
