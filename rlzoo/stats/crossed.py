"""The mean of a table of seeds by problems, where both are samples: crossed random effects.

    D[s, j] = mu + S_s + P_j + E_sj            seeds s = 1 .. n, problems j = 1 .. m
    Var(mean D) = var(S)/n + var(P)/m + var(E)/(n m),   estimated by  (MS_S + MS_P - MS_E) / (n m)

    half width at level a:  sqrt(w t(a, n-1)^2 + (1 - w) t(a, m-1)^2) * error,   w = the share of MS_S, at most 1

MS are the mean squares of the two-way analysis of variance without replication. The estimate of the variance is
unbiased; where MS_P happens to be below MS_E, all of it has the degrees of freedom of seeds (w = 1). Each part of the
error has the critical value of its own degrees of freedom. Satterthwaite's common ones are too many at the small levels
of a corrected family: with four seeds that happen to agree, ten pairs of equally good rows had 13% false alarms in
place of 5.

An interval over seeds alone answers "other seeds on these problems"; this one answers "other seeds on
other problems of this task". With 16 seeds and 128 problems the former covers the task's mean in about 80% of cases,
the latter in 95 to 97% (tests/stats/test_crossed.py, benchmarks/results/calibration.md). Its coverage is above 95% with
few problems near the ceiling: there about ten problems of 128 carry the difference, and a t statistic of few values
that are not 0 exceeds its critical value less often.

MS_S cannot be far below MS_E, because its expectation is m var(S) + var(E). So it is held above the value that it would
fall below in one case of twenty if seeds made no difference at all. Without this floor a few seeds that happen to agree
would have no error.

Over several tasks the problems are strata: tasks are fixed, so a problem is compared with those of its own task only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from rlzoo.stats.intervals import CONFIDENCE, Interval

FLOOR = 0.05
"""Chance of a mean square of seeds below the floor if seeds made no difference."""
POWER = 0.8
SMALLEST_P = 1e-100
UNKNOWN_PROBLEMS = 128
"""Held-out problems behind a score that is a single number, where nobody says otherwise."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and problems with its standard error.

    Attributes:
        error: standard error; None with one seed.
        df: degrees of freedom of its part from seeds, n - 1.
        seeds: n.
        problems: m; None where the outcome of each problem is unknown, and the error is that of other seeds alone.
        seed_share: share of the squared error that is MS_S.
        of_seeds, of_problems, of_rest: the variances of S, P and E; where problems are unknown, all of it is of seeds.
    """

    mean: float
    error: float | None
    df: float
    seeds: int
    problems: int | None
    of_seeds: float = 0.0
    of_problems: float = 0.0
    of_rest: float = 0.0
    seed_share: float = 1.0

    def critical(self, tail: float) -> float:
        """Return how many standard errors the mean exceeds with probability `tail`, up to 1/2, if the truth is 0."""
        seeds = float(special.stdtrit(self.df, tail))
        if self.problems is None or self.seed_share >= 1:
            return -seeds
        problems = float(special.stdtrit(self.problems - 1, tail))
        return math.sqrt(self.seed_share * seeds**2 + (1 - self.seed_share) * problems**2)

    def tail(self, t: float) -> float:
        """Return the probability that the mean exceeds t standard errors if the truth is 0: `critical`, inverted."""
        if t <= 0:
            return 1 - self.tail(-t) if t < 0 else 0.5
        if self.problems is None or self.seed_share >= 1:
            return float(special.stdtr(self.df, -t))
        low, high = math.log(SMALLEST_P), math.log(0.5)
        if self.critical(SMALLEST_P) <= t:
            return SMALLEST_P
        return math.exp(optimize.brentq(lambda log: self.critical(math.exp(log)) - t, low, high, xtol=1e-9))

    def interval(self, level: float = 1 - CONFIDENCE) -> Interval:
        """Return the mean with its two-sided interval of confidence 1 - level."""
        if self.error is None:
            return Interval(self.mean, None, None, self.seeds)
        half = self.critical(level / 2) * self.error
        return Interval(self.mean, self.mean - half, self.mean + half, self.seeds)

    def share(self, level: float = 1 - CONFIDENCE) -> Interval:
        """Return the interval of a mean share: on the scale of log-odds where the plain one leaves 0 to 100%."""
        plain = self.interval(level)
        if plain.low is None or plain.high is None or (plain.low >= 0 and plain.high <= 1):
            return plain
        count = self.seeds * (self.problems or UNKNOWN_PROBLEMS)
        p = min(max(self.mean, 0.5 / (count + 1)), 1 - 0.5 / (count + 1))
        half = (plain.high - plain.mean) / (p * (1 - p))
        low, high = special.expit(special.logit(p) - half), special.expit(special.logit(p) + half)
        return Interval(self.mean, min(float(low), self.mean), max(float(high), self.mean), self.seeds)

    def difference_p(self) -> float | None:
        """Return the two-sided p-value of mean 0; None with one seed."""
        if self.error is None:
            return None
        return 2 * self.tail(abs(self.mean) / self.error)

    def equivalence_p(self, margin: float) -> float | None:
        """Return the larger p-value of two one-sided tests (TOST) of a mean within +- margin; None with one seed."""
        if self.error is None:
            return None
        return self.tail((margin - abs(self.mean)) / self.error)

    def detectable(self, level: float = 1 - CONFIDENCE, power: float = POWER) -> float | None:
        """Return the true mean that is found, with its sign, with probability `power`; None with one seed."""
        if self.error is None:
            return None
        # The t distribution with this critical value has more degrees of freedom, the more is of problems.
        df = float(special.stdtridf(1 - level / 2, self.critical(level / 2)))
        return noncentrality(df if df >= self.df else self.df, level, power) * self.error

    @property
    def shares(self) -> dict[str, float] | None:
        """Return which share of the squared error is due to seeds, to problems, and to both at once."""
        if self.problems is None or self.error is None:
            return None
        n, m = self.seeds, self.problems
        parts = {"seeds": self.of_seeds / n, "problems": self.of_problems / m, "rest": self.of_rest / (n * m)}
        total = sum(parts.values())
        return {name: part / total for name, part in parts.items()} if total else None

    def error_with(self, seeds: int, problems: int) -> float:
        """Return the standard error that so many seeds and problems would have, by these variances."""
        return math.sqrt(self.of_seeds / seeds + self.of_problems / problems + self.of_rest / (seeds * problems))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dict(self.__dict__) | {"shares": self.shares}


def estimate(table: ArrayLike, strata: Sequence[int] | None = None) -> Estimate:
    """Estimate the mean of a table [n seeds, m problems], such as differences of accuracies on each problem.

    Args:
        strata: number of problems of each task, in the order of the columns; None: all are of one task.

    Raises:
        ValueError: it is not a table of finite numbers with a row and two columns or more, or the strata are not of its
            columns, two or more in each.
    """
    d = np.asarray(table, np.float64)
    if d.ndim != 2 or d.shape[0] < 1 or d.shape[1] < 2 or not np.isfinite(d).all():
        raise ValueError(f"a table [seeds, problems] of finite numbers, with two problems or more, got {d.shape}")
    n, m = d.shape
    sizes = list(strata or [m])
    if sum(sizes) != m or min(sizes) < 2:
        raise ValueError(f"{m} problems are to be divided among tasks, two or more to each, got {sizes}")
    mean = float(d.mean())
    if n == 1:
        return Estimate(mean, None, 0.0, 1, m)
    by_seed = d.mean(axis=1) - mean
    seeds = m * float(by_seed @ by_seed) / (n - 1)
    of_each = [_squares(block) for block in np.split(d, np.cumsum(sizes)[:-1], axis=1)]
    problems, both = (sum(squares) / (m - len(sizes)) for squares in zip(*of_each, strict=True))
    both = max(both / (n - 1), 0.5 / (n * m))  # not even half an outcome of all is different: no table has no error
    least = both * _floor(n)
    from_seeds = max(seeds, least)
    total = max(from_seeds + problems - both, least)
    of_seeds, of_problems = max(seeds - both, 0.0) / m, max(problems - both, 0.0) / n
    share = min(from_seeds / total, 1.0)
    return Estimate(mean, math.sqrt(total / (n * m)), n - 1, n, m, of_seeds, of_problems, both, share)


def _squares(d: Array) -> tuple[float, float]:
    """Return the sums of squares of problems and of what is left of one task's table [n, m]."""
    by_problem = d.mean(axis=0) - d.mean()
    rest = d - d.mean(axis=1, keepdims=True) - by_problem
    return d.shape[0] * float(by_problem @ by_problem), float((rest * rest).sum())


def estimate_scores(values: Sequence[float], smallest: float = 0.0) -> Estimate:
    """Estimate the mean of one number per seed, where the outcomes on single problems are unknown.

    Args:
        values: [n], finite.
        smallest: variance of one value that is there even if all seeds give the same, such as that of its problems.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    d = np.asarray(values, np.float64)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError(f"one or more finite numbers, one per seed, got {list(values)}")
    n = len(d)
    if n == 1:
        return Estimate(float(d[0]), None, 0.0, 1, None)
    variance = max(float(d.var(ddof=1)), smallest * _floor(n), 1e-12)
    return Estimate(float(d.mean()), math.sqrt(variance / n), n - 1, n, None, of_seeds=variance)


def noncentrality(df: float, level: float, power: float) -> float:
    """Return the noncentrality at which t exceeds its two-sided critical value with probability `power`."""
    critical = special.stdtrit(df, 1 - level / 2)
    return float(special.nctdtrinc(df, 1 - power, critical))


def _floor(n: int) -> float:
    """Return the quantile `FLOOR` of a mean square with n - 1 degrees of freedom, in units of its expectation."""
    return float(stats.chi2.ppf(FLOOR, n - 1)) / (n - 1)
