"""How many seeds and problems a comparison needs: the standard error of `rlzoo.stats.crossed`, solved for n and m.

    settles if   |mean| >= nc(level) * error(n, m)      (better or worse)
            or   margin - |mean| >= nc(2 level) * error(n, m)      (equivalent: both of two one-sided tests)

nc is the noncentrality at which the test of that level succeeds with probability 0.8 (0.9 for each of the two). The
variances come from few seeds, so the answers are rough: with four seeds a standard deviation is known to within a
factor of 0.6 to 3.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rlzoo.stats.crossed import POWER, Estimate, noncentrality

MOST_SEEDS = 200
MOST_PROBLEMS = 1_000_000


@dataclass(frozen=True)
class Settled:
    """What would settle an inconclusive pair, if the difference is as large as it was measured.

    Attributes:
        seeds: in all, with as many problems as now; None: more than `MOST_SEEDS`.
        problems: in all, with as many seeds as now; None: no number of problems would.
    """

    seeds: int | None
    problems: int | None

    @property
    def words(self) -> str:
        """Return a sentence: `About 12 seeds or 3,000 problems would settle it.`"""
        ways = [f"{self.seeds} seeds"] if self.seeds else []
        ways += [f"{self.problems:,} problems"] if self.problems else []
        if not ways:
            return f"Neither {MOST_SEEDS} seeds nor more problems would settle it."
        alone = "" if self.problems else "; more problems alone would not"
        return f"About {' or '.join(ways)} would settle it{alone}."


def settled(found: Estimate, margin: float, level: float, power: float = POWER) -> Settled | None:
    """Return how many seeds, or problems, would settle a pair with probability `power`; None with one seed."""
    if found.error is None:
        return None
    m = found.problems or 1
    seeds = range(found.seeds + 1, MOST_SEEDS + 1)
    ways = Settled(_first(seeds, lambda n: _settles(found, found.error_with(n, m), n - 1, margin, level, power)), None)
    if found.problems is None:
        return ways
    problems = [_rounded(m * 1.25**i) for i in range(1, 60) if m * 1.25**i <= MOST_PROBLEMS]
    n, df = found.seeds, found.seeds - 1
    enough = _first(problems, lambda count: _settles(found, found.error_with(n, count), df, margin, level, power))
    return Settled(ways.seeds, enough)


def detectable(found: Estimate, seeds: int, problems: int | None, level: float, power: float = POWER) -> float:
    """Return the smallest true difference that so many seeds and problems find with probability `power`."""
    return noncentrality(seeds - 1, level, power) * found.error_with(seeds, problems or 1)


def pooled(found: Sequence[Estimate]) -> Estimate:
    """Return an estimate with the mean variances of several, to plan with. Raises ValueError for none with an error."""
    usable = [one for one in found if one.error is not None]
    if not usable:
        raise ValueError("no difference with two seeds or more, so there is no variance to plan with")

    def mean(name: str) -> float:
        return math.fsum(getattr(one, name) for one in usable) / len(usable)

    first = usable[0]
    problems = first.problems if all(one.problems for one in usable) else None
    variances = {name: mean(name) for name in ("of_seeds", "of_problems", "of_rest")}
    return Estimate(0.0, mean("error"), first.df, first.seeds, problems, **variances)


def _settles(found: Estimate, error: float, df: float, margin: float, level: float, power: float) -> bool:
    distance = abs(found.mean)
    different = distance >= noncentrality(df, level, power) * error
    return different or margin - distance >= noncentrality(df, 2 * level, (1 + power) / 2) * error


def _first(values: Iterable[int], good: Callable[[int], bool]) -> int | None:
    return next((value for value in values if good(value)), None)


def _rounded(number: float) -> int:
    """Round up to two digits: nobody should read more into it."""
    step = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step
