"""Several looks at growing data: look k = 1, 2, 3, ... may use this much of the level.

    level_k = level * FIRST * (1 - FIRST)^(k - 1),   so that  sum_k level_k < level

Whoever adds seeds until a verdict comes out gets 10% of false alarms from four looks at the 5% level, and 18% from a
look at every n from 2 to 16. Spending the level by a series that sums to it bounds the false alarms of any number of
looks, planned or not, by the union bound. A group-sequential boundary with a fixed number of looks would be a little
stronger, but nobody here knows the number in advance.
"""

from __future__ import annotations

FIRST = 0.75
"""Share of the level that the first look uses: 3.75% of 5%, then 0.94%, 0.23%, ..."""


def spent(level: float, look: int) -> float:
    """Return the level of look number `look`, counted from 1."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, got {look}")
    return level * FIRST * (1 - FIRST) ** (look - 1)
