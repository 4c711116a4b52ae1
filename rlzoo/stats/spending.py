"""Several looks at growing data: the part of the level that look k = 1, 2, 3, ... may use.

    level_k = level * FIRST * (1 - FIRST)^(k - 1),   so that  sum_k level_k < level

Adding seeds until a verdict comes out makes 10% false alarms with four looks at the 5% level, and 18% with a look at
every n from 2 to 16. If the levels of all looks sum to at most the level, the union bound keeps the false alarms of any
number of looks, planned or not, below it. A group-sequential boundary is a little more powerful, but needs the number
of looks in advance, which is unknown here.
"""

from __future__ import annotations

FIRST = 0.75
"""Share of the level that the first look uses: 3.75% of 5%, then 0.94%, 0.23%, ..."""


def spent(level: float, look: int) -> float:
    """Return the level of look number `look`, counted from 1."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, got {look}")
    return level * FIRST * (1 - FIRST) ** (look - 1)
