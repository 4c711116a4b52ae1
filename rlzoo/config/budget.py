"""Budgets: what a run may spend. `tokens=200k` ends it after the first step at which it has sampled 200,000 tokens.

    tokens     all sampled tokens, including those that selection discards, so dynamic sampling pays for them
    trained    tokens in updates, once per epoch
    updates    optimizer updates
    seconds    engine time charged to the run: its share of its batches' time, evaluations included, measured in its
               own process

A run ends at a step, never within one, so it overshoots by less than a step. All but `seconds` are counted and repeat
exactly; `seconds` depends on the machine, its load and the other runs, and does not repeat.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advantages.names import nearest

COUNTERS = {"tokens": "tokens_sampled", "trained": "tokens_trained", "updates": "updates", "seconds": "engine_s"}
"""Unit -> its key in metrics.jsonl."""
SUFFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Budget:
    """A limit in one unit."""

    unit: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `tokens=200k`; k, M and G are thousands, millions and billions.

        Raises:
            ValueError: it is not of this form, the unit is unknown, or the limit is not positive.
        """
        unit, _, amount = (part.strip() for part in text.partition("="))
        match = re.fullmatch(r"([0-9]+\.?[0-9]*(?:e[+-]?[0-9]{1,3})?)([kMG]?)", amount)
        if match is None:
            raise ValueError(f"a budget is a unit and a limit, such as tokens=200k or updates=500, got {text!r}")
        if unit not in COUNTERS:
            raise ValueError(f"unknown budget {unit!r}; {nearest(unit, COUNTERS)}")
        limit = float(match[1]) * SUFFIXES[match[2]]
        if not 0 < limit < math.inf:
            raise ValueError(f"a budget must be finite and above 0, got {text!r}")
        return cls(unit, limit)

    @classmethod
    def of(cls, setting: str | None) -> Budget | None:
        """Return the budget of a setting; None for None."""
        return None if setting is None else cls.parse(setting)

    def share(self, spent: Mapping[str, Any]) -> float:
        """Return the share of the budget that is spent (1: all); `spent` has the counters of metrics.jsonl."""
        return spent[COUNTERS[self.unit]] / self.limit

    def __str__(self) -> str:
        return f"{self.unit}={self.limit:.15g}"
