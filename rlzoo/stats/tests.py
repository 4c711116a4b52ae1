"""Tests of paired differences d_1 .. d_n, one per seed: is their mean other than 0, is it within a margin of 0.

    t = mean(d) / (s / sqrt(n)),   p = P(|T(n-1)| >= |t|);   within the margin: the larger p of the two one-sided tests

Why t. Two arms of one algorithm, 2,000 times, level 5%: in how many percent was a difference seen that is not there?
(From benchmarks/results/calibration.md; "discrete" is a share of 256 prompts near the ceiling, "dropout" has one run in
ten collapse. BCa is the bootstrap of the mean, IQM the percentile bootstrap of the interquartile mean.)

                    normal              skewed              discrete            dropout
    seeds       4     8     16      4     8     16      4     8     16      4     8     16
    t           5.7   4.7   4.3     2.8   3.5   4.4     2.2   4.0   4.8     2.3   1.9   2.0
    sign flips  0.0   3.6   4.3     0.0   4.8   5.0     0.0   2.5   4.0     0.0   5.0   4.2
    BCa         21.5  12.6  7.2     21.1  16.8  12.2    16.2  14.2  11.5    24.1  22.9  18.7
    IQM         13.8  6.3   6.0     11.2  6.8   5.7     4.5   4.5   4.8     11.1  6.6   5.5

Bootstrap intervals are too narrow with few seeds; the exact sign-flip test has 2^n outcomes and cannot reach 5% with
five seeds or fewer, nor a corrected level with a few more. So verdicts and their intervals are those of t, and the
bootstrap interval is reported beside it.

Where all differences are equal there is no spread to estimate an error from, and t would be infinite. Then p is that of
the sign-flip test, 2^(1-n), or 1 if they are all zero. (It matters: two shares of the same few prompts often differ by
the same amount. With two seeds, t without this rule raises 8% of false alarms on discrete accuracies.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from scipy import stats as scipy_stats

from rlzoo.stats.intervals import CONFIDENCE, Interval

RESAMPLES = 2000
EQUAL = 1e-9
"""Differences of accuracies that are closer than this are equal: what is left is rounding."""
POWER = 0.8


def difference_p(differences: ArrayLike) -> float:
    """Return the two-sided p-value of mean 0; see above for differences that are all equal. [n], n >= 2."""
    d = np.asarray(differences, np.float64)
    if _equal(d):
        return 1.0 if abs(d.mean()) < EQUAL else 2.0 ** (1 - len(d))
    return 2 * _upper_tail(d, abs(d.mean()))


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """Return the p-value of a mean that is `margin` or more from 0: the larger of two one-sided tests. [n], n >= 2.

    Small where the mean is within the margin. With differences that are all equal: 2^-n within it, 1 outside.
    Source: Schuirmann's two one-sided tests (TOST).
    """
    d = np.asarray(differences, np.float64)
    if _equal(d):
        return 2.0 ** -len(d) if abs(d.mean()) < margin - EQUAL else 1.0
    return _upper_tail(d, margin - abs(d.mean()))  # the nearer of the two ends


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's corrected p-values: the i-th smallest of m times m - i + 1, never falling, at most 1.

    Those below a level are claimed together, and the chance that any of the claims is wrong is below that level.
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p, np.float64)[order] * factors), 1.0)
    result = np.empty(len(p))
    result[order] = corrected
    return result.tolist()


def detectable(std: float, n: int, level: float = 1 - CONFIDENCE, power: float = POWER) -> float:
    """Return the smallest true mean difference that n seeds find, with its sign, with probability `power`.

    The t statistic of a true mean m is noncentral with parameter m sqrt(n) / std: m is such that it exceeds the
    two-sided critical value with probability `power`. The correction for k comparisons is level / k. Exact for normal
    differences; where one run in ten collapses, four seeds find it in 68% of cases instead of 80% (calibration.md).

    Args:
        std: standard deviation of the differences between seeds.
        n: seeds, 2 or more.
    """
    return _noncentrality(n, level, power) * std / math.sqrt(n)


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


def bootstrap_mean(differences: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of [n] differences with its BCa bootstrap interval, which is too narrow (see above).

    No limits where the differences are all equal, as they are with n = 1.
    """
    d = np.asarray(differences, np.float64)
    if _equal(d):
        return Interval(float(d.mean()), None, None, len(d))
    return _bootstrap(d, np.mean, float(d.mean()), confidence, "BCa")


def interquartile_mean(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of the middle half of [n] values with its percentile bootstrap interval; no limits for n = 1.

    A quarter of n, rounded down, is cut off at each end: nothing with fewer than four. Source: 2108.13264, with the
    caveat above: with few seeds the interval is too narrow.
    """
    x = np.asarray(values, np.float64)
    centre = float(scipy_stats.trim_mean(x, 0.25))
    if len(x) == 1:
        return Interval(centre, None, None, 1)
    return _bootstrap(x, partial(scipy_stats.trim_mean, proportiontocut=0.25), centre, confidence, "percentile")


def _bootstrap(
    x: NDArray[np.float64], statistic: Callable[..., object], centre: float, confidence: float, method: str
) -> Interval:
    limits = scipy_stats.bootstrap(
        (x,),
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method=method,
        rng=np.random.default_rng(0),  # the same values give the same interval
    ).confidence_interval
    return Interval(centre, float(limits.low), float(limits.high), len(x))


@lru_cache(maxsize=1000)
def _noncentrality(n: int, level: float, power: float) -> float:
    critical = scipy_stats.t.isf(level / 2, n - 1)
    return float(
        optimize.brentq(lambda m: scipy_stats.nct.sf(critical, n - 1, m) - power, 0.0, 10 * (critical + 10), xtol=1e-9)
    )


def _upper_tail(d: NDArray[np.float64], distance: float) -> float:
    """P(T(n-1) > distance in standard errors of the mean of d)."""
    return float(special.stdtr(len(d) - 1, -distance * math.sqrt(len(d)) / d.std(ddof=1)))


def _equal(d: NDArray[np.float64]) -> bool:
    return bool(np.ptp(d) < EQUAL)
