"""Means over seeds with t intervals.

    mean +- t(n - 1) s / sqrt(n)        s: the unbiased standard deviation over n seeds

Seeds are the sample: n is their number, never the number of prompts. Algorithms that ran with the same seeds saw the
same prompts and the same noise, so they are compared by their differences per seed (`paired`), whose interval leaves
out what the seeds share.

If all seeds give the same number, the interval has width 0, which is too narrow when n is small: read it together
with n. Verdicts use `rlzoo.stats.crossed`, which has no such case.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval, in the unit of the values: accuracies are shares.

    Attributes:
        low, high: None for a single value, which has no interval.
        n: number of values, seeds as a rule.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Return the +- of the interval."""
        return None if self.high is None else self.high - self.mean

    @property
    def sign(self) -> int:
        """Return 1 where the whole interval is above zero, -1 where it is below, 0 where it contains zero."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of independent values, one per seed, and its t interval.

    Args:
        values: n >= 1 finite numbers.
        confidence: coverage, in (0, 1).

    Raises:
        ValueError: no value, or one that is not finite.
    """
    if len(values) == 0 or not all(math.isfinite(v) for v in values):
        raise ValueError(f"an interval needs one or more finite values, got {list(values)}")
    n = len(values)
    mean = float(np.mean(values))
    if n == 1:
        return Interval(mean, None, None, 1)
    half = float(scipy_stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired(
    after: Mapping[Hashable, float], before: Mapping[Hashable, float], confidence: float = CONFIDENCE
) -> Interval:
    """Return the interval of `after - before` over the seeds that both have.

    Raises:
        ValueError: they share no seed.
    """
    shared = [seed for seed in after if seed in before]
    return interval([after[seed] - before[seed] for seed in shared], confidence)


def verdict(difference: Interval) -> str:
    """Return the verdict that the interval of a difference supports: better, worse or inconclusive."""
    return {1: "better", -1: "worse", 0: "inconclusive"}[difference.sign]
