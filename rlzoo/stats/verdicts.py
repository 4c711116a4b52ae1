"""A verdict for every pair of algorithms, from their scores over seeds.

For every pair, over the seeds that both have, with differences d (`rlzoo.stats.tests` has the tests):

    equivalent       the mean of d is within +- margin: two one-sided tests, Holm's p over all pairs < level
    better, worse    it is not 0: two-sided, Holm's p over all pairs < level (level = 1 - confidence)
    inconclusive     neither

Both kinds of claims are corrected for the number of pairs, each kind by itself: the chance of any wrong better or worse
in a comparison is at most `level`, and so is the chance of any wrong equivalent. A difference that is shown to be
smaller than the margin is equivalent even if it is shown not to be 0: the margin says what is too small to matter.

Intervals are those of each pair by itself. So one may leave out 0 where the verdict, which allows for the number of
pairs, is inconclusive.

Algorithms without a common seed are compared as well, the i-th seed of one with the i-th of the other: these are
independent runs, and any fixed way to pair them is as good as any other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from rlzoo.config.comparison import MARGIN
from rlzoo.stats import sentences, tests
from rlzoo.stats.intervals import CONFIDENCE, Interval, interval
from rlzoo.stats.scores import Scores

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]

_OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Decision:
    """What is decided about one pair.

    Attributes:
        p: two-sided p-value of no difference; None with one seed.
        p_holm: corrected for the number of pairs.
        p_equivalent: p-value of a difference of `margin` or more, corrected for the number of pairs.
        verdict: seen from the first of the two.
    """

    p: float | None
    p_holm: float | None
    p_equivalent: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Standing:
    """One algorithm by itself.

    Attributes:
        n: seeds with a score.
        mean: with its t interval.
        iqm: interquartile mean with its bootstrap interval.
        worst: the lowest score of a seed.
        collapse_rate: share of all its seeds that collapsed (`rlzoo.stats.scores.collapsed`); None where not
            counted.
    """

    algorithm: str
    n: int
    mean: Interval
    iqm: Interval
    worst: float
    collapse_rate: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return _json(self)


@dataclass(frozen=True)
class Pair:
    """Two algorithms, `a` seen from `b`: a positive difference is in favour of `a`.

    Attributes:
        n: pairs of runs.
        same_seeds: False where they share none, and seeds were paired in their order.
        difference: mean of a - b with its t interval, which the verdict goes with; no limits with one seed.
        bootstrap: the same mean with its BCa bootstrap interval, too narrow with few seeds; no limits with one seed or
            where all differences are equal.
        p, p_holm, p_equivalent, verdict: see `Decision`.
        improvement: P(a > b) on a seed, ties counting half.
        detectable: the smallest true difference that would have been found with probability 0.8, given the spread of
            these differences, at the level corrected for all pairs; None with one seed, or without any spread.
    """

    a: str
    b: str
    n: int
    same_seeds: bool
    difference: Interval
    bootstrap: Interval
    p: float | None
    p_holm: float | None
    p_equivalent: float | None
    improvement: Interval
    detectable: float | None
    verdict: Verdict

    def flipped(self) -> Pair:
        """Return the same pair seen from the other side."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            difference=_mirrored(self.difference, 0.0),
            bootstrap=_mirrored(self.bootstrap, 0.0),
            improvement=_mirrored(self.improvement, 1.0),
            verdict=_OPPOSITE.get(self.verdict, self.verdict),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return _json(self)


@dataclass(frozen=True)
class Judgement:
    """What the scores of a comparison allow to be said.

    Attributes:
        measure: what was scored, in words: "held-out accuracy".
        standings: of every algorithm with a score, the highest mean first.
        pairs: every two of them once, `a` the one with the higher mean, in the order of the standings.
        margin: differences below it are too small to matter.
        confidence: of every interval; 1 - confidence is the level of the verdicts.
    """

    measure: str
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    margin: float
    confidence: float

    @property
    def level(self) -> float:
        """Return the largest chance of any wrong better or worse, and of any wrong equivalent."""
        return 1 - self.confidence

    def pair(self, a: str, b: str) -> Pair:
        """Return the pair of two algorithms, seen from the first. Raises KeyError if there is none."""
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
            if (pair.a, pair.b) == (b, a):
                return pair.flipped()
        raise KeyError(f"{a} and {b} were not compared")

    def sentences(self) -> list[str]:
        """Return the verdicts in words; see `rlzoo.stats.sentences`."""
        return sentences.sentences(self)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types, with the sentences."""
        return {
            "measure": self.measure,
            "margin": self.margin,
            "confidence": self.confidence,
            "sentences": self.sentences(),
            "standings": [standing.as_dict() for standing in self.standings],
            "pairs": [pair.as_dict() for pair in self.pairs],
        }


def judge(
    scores: Scores,
    *,
    margin: float = MARGIN,
    confidence: float = CONFIDENCE,
    collapsed: Mapping[str, Collection[int]] | None = None,
    measure: str = "held-out accuracy",
) -> Judgement:
    """Judge every two algorithms by their scores.

    Args:
        scores: algorithm -> seed -> score, higher is better; algorithms without a seed are left out.
        margin: the smallest difference that matters, in the scores' unit.
        confidence: of the intervals; the level of the verdicts is what is left to 1.
        collapsed: algorithm -> its seeds that collapsed; None: not known.
        measure: the scores in words, for the sentences.

    Raises:
        ValueError: a score is not finite, the margin is not positive, or the confidence not between 0 and 1.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be a positive number, the smallest difference that matters, got {margin}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    standings = [
        _standing(name, seeds, confidence, None if collapsed is None else collapsed.get(name, ()))
        for name, seeds in scores.items()
        if seeds
    ]
    standings.sort(key=lambda standing: -standing.mean.mean)  # stable: ties stay in the order given
    pairs = _pairs(scores, [standing.algorithm for standing in standings], margin, confidence)
    return Judgement(measure, tuple(standings), tuple(pairs), margin, confidence)


def _standing(name: str, seeds: Mapping[int, float], confidence: float, lost: Collection[int] | None) -> Standing:
    values = list(seeds.values())
    mean = interval(values, confidence)
    rate = None if lost is None else len(set(lost)) / len(seeds.keys() | set(lost))
    return Standing(name, len(values), mean, tests.interquartile_mean(values, confidence), min(values), rate)


def _differences(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    shared = sorted(a.keys() & b.keys())
    seeds = zip(shared, shared, strict=True) if shared else zip(sorted(a), sorted(b), strict=False)
    return [a[one] - b[other] for one, other in seeds]


def decide(differences: Sequence[Sequence[float]], margin: float, level: float) -> list[Decision]:
    """Decide about all pairs of a comparison together: one list of differences over seeds for each."""
    several = [i for i, d in enumerate(differences) if len(d) > 1]
    p = [tests.difference_p(differences[i]) for i in several]
    p_equivalent = tests.holm([tests.equivalence_p(differences[i], margin) for i in several])
    decisions = [Decision(None, None, None, "inconclusive") for _ in differences]
    for i, alone, holm, equivalent in zip(several, p, tests.holm(p), p_equivalent, strict=True):
        verdict: Verdict = "inconclusive"
        if equivalent < level:
            verdict = "equivalent"
        elif holm < level:
            verdict = "better" if sum(differences[i]) > 0 else "worse"
        decisions[i] = Decision(alone, holm, equivalent, verdict)
    return decisions


def _pairs(scores: Scores, ranked: Sequence[str], margin: float, confidence: float) -> list[Pair]:
    names = list(combinations(ranked, 2))
    differences = [_differences(scores[a], scores[b]) for a, b in names]
    level = 1 - confidence
    corrected = level / max(1, sum(len(d) > 1 for d in differences))
    return [
        Pair(
            a,
            b,
            n=len(d),
            same_seeds=bool(scores[a].keys() & scores[b].keys()),
            difference=interval(d, confidence),
            bootstrap=tests.bootstrap_mean(d, confidence),
            improvement=tests.improvement(d, confidence),
            detectable=_detectable(d, corrected),
            **vars(decision),
        )
        for (a, b), d, decision in zip(names, differences, decide(differences, margin, level), strict=True)
    ]


def _detectable(d: Sequence[float], level: float) -> float | None:
    spread = float(np.std(d, ddof=1)) if len(d) > 1 else 0.0
    return tests.detectable(spread, len(d), level) if spread > tests.EQUAL else None


def _mirrored(one: Interval, total: float) -> Interval:
    """Return the interval of `total` - x."""
    low, high = (None if side is None else total - side for side in (one.high, one.low))
    return Interval(total - one.mean, low, high, one.n)


def _json(value: Any) -> dict[str, Any]:
    items = ((field.name, getattr(value, field.name)) for field in fields(value))
    return {name: item.as_dict() if isinstance(item, Interval) else item for name, item in items}
