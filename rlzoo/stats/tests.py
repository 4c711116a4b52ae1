"""Corrections for several questions, the probability of improvement, and the interquartile mean.

    Holm: the i-th smallest of m p-values times m - i + 1, never falling

Why verdicts are those of t. Two arms of one algorithm, 2,000 times, level 5%: in how many percent was a difference seen
that is not there? ("discrete" is a share of 256 prompts near the ceiling, "dropout" has one run in ten collapse; BCa is
the bootstrap of the mean, IQM the percentile bootstrap of the interquartile mean.)

                    normal              skewed              discrete            dropout
    seeds       4     8     16      4     8     16      4     8     16      4     8     16
    t           5.7   4.7   4.3     2.8   3.5   4.4     2.2   4.0   4.8     2.3   1.9   2.0
    sign flips  0.0   3.6   4.3     0.0   4.8   5.0     0.0   2.5   4.0     0.0   5.0   4.2
    BCa         21.5  12.6  7.2     21.1  16.8  12.2    16.2  14.2  11.5    24.1  22.9  18.7
    IQM         13.8  6.3   6.0     11.2  6.8   5.7     4.5   4.5   4.8     11.1  6.6   5.5

Bootstrap intervals are too narrow with few seeds; the exact sign-flip test has 2^n outcomes and cannot reach 5% with
five seeds or fewer. `rlzoo.stats.crossed` has the t statistic with the error of seeds and problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from rlzoo.stats.intervals import CONFIDENCE, Interval

RESAMPLES = 2000
EQUAL = 1e-9
"""Differences of accuracies that are closer than this are equal: what is left is rounding."""


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """Return Holm's corrected p-values: the i-th smallest of m times m - i + 1, never falling, at most 1.

    Those below a level are claimed together, and the chance that any of the claims is wrong is below that level.

    Args:
        family: m, if more questions were declared than have a p-value; those count as the largest.
    """
    size = len(p) if family is None else family
    order = np.argsort(p, kind="stable")
    factors = np.arange(size, size - len(p), -1)
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p, np.float64)[order] * factors), 1.0)
    result = np.empty(len(p))
    result[order] = corrected
    return result.tolist()


def holm_levels(p: Sequence[float], level: float, family: int | None = None) -> list[float]:
    """Return the level at which Holm's procedure tests each p-value: `level` / (m - i + 1) down to where it stops.

    A question is claimed exactly if its p-value is below its level.
    """
    size = len(p) if family is None else family
    result = [level / max(size, 1)] * len(p)
    step = size
    for i in np.argsort(p, kind="stable"):
        result[i] = level / step
        step -= p[i] < result[i]
    return result


def improvement(differences: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the probability that a seed's difference is above 0, ties counting half, with Clopper-Pearson limits.

    The pair is one seed's two runs. (rliable, 2108.13264, pairs every run with every other: its runs share no seeds.)
    With ties the number of wins need not be whole; the limits are then those of the same beta quantiles.
    """
    d = np.asarray(differences, np.float64)
    n, wins = len(d), float(np.sum(d > EQUAL) + np.sum(np.abs(d) <= EQUAL) / 2)
    tail = (1 - confidence) / 2
    low = scipy_stats.beta.ppf(tail, wins, n - wins + 1) if wins > 0 else 0.0
    high = scipy_stats.beta.isf(tail, wins + 1, n - wins) if wins < n else 1.0
    return Interval(wins / n, float(low), float(high), n)


def interquartile_mean(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of the middle half of [n] values with its percentile bootstrap interval; no limits for n = 1.

    A quarter of n, rounded down, is cut off at each end: nothing with fewer than four. Source: 2108.13264, with the
    caveat above: with few seeds the interval is too narrow.
    """
    x = np.asarray(values, np.float64)
    centre = float(scipy_stats.trim_mean(x, 0.25))
    if len(x) == 1:
        return Interval(centre, None, None, 1)
    limits = scipy_stats.bootstrap(
        (x,),
        partial(scipy_stats.trim_mean, proportiontocut=0.25),
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),  # the same values give the same interval
    ).confidence_interval
    return Interval(centre, float(limits.low), float(limits.high), len(x))
