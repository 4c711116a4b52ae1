"""One look per algorithm, the same in every figure and table: by its position in the order in which they are named.

Okabe and Ito's palette, told apart by readers with any colour vision, less the yellow that white paper swallows.
Past its end the colours come again with other dashes.
"""

from __future__ import annotations

from typing import Any

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (6, 1, 1, 1)))


def colour(position: int) -> str:
    """Return the colour of the algorithm at a position, as #rrggbb."""
    return PALETTE[position % len(PALETTE)]


def dash(position: int) -> Any:
    """Return matplotlib's line style of the algorithm at a position."""
    return DASHES[position // len(PALETTE) % len(DASHES)]


def ink(position: int) -> str:
    """Return rich's style for the algorithm's name: its colour, or the terminal's own where that is black."""
    return "bold" if colour(position) == "#000000" else f"bold {colour(position)}"
