"""The types of a judgement: `rlzoo.stats.judge` makes them, `rlzoo.stats.sentences` writes them out."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from rlzoo.stats.crossed import Estimate
from rlzoo.stats.intervals import Interval
from rlzoo.stats.power import Settled

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]

_OPPOSITE: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Refusal:
    """Why there is no verdict: a name to test for and a sentence to read."""

    name: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """The decision on one question.

    Attributes:
        p: two-sided p-value of no difference; None with one seed.
        p_holm: corrected for the family.
        p_equivalent: p-value of a difference of `margin` or more, corrected for the family.
        level: at which Holm's procedure tests this question for a difference.
        verdict: None where a precondition does not hold.
    """

    p: float | None
    p_holm: float | None
    p_equivalent: float | None
    level: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Standing:
    """One algorithm by itself.

    Attributes:
        n: seeds with a score.
        mean: with its interval over seeds and problems, inside 0 to 100%.
        iqm: interquartile mean over seeds with its bootstrap interval.
        worst: the lowest score of a seed.
        collapse_rate: share of its seeds that collapsed (`rlzoo.stats.scores.collapsed`); None where not counted.
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
        difference: mean of a - b with its interval of confidence 1 - `level`; no limits with one seed.
        level: at which Holm's procedure tests the pair for a difference.
        found: the estimate behind it.
        errors: how many times as many errors b makes as a, where both are near the ceiling, with its interval.
        p, p_holm, p_equivalent, verdict: see `Decision`.
        refusal: why there is no verdict, if there is none.
        improvement: P(a > b) on a seed, ties counting half.
        correlation: of the two rows over seeds; None with fewer than three seeds or no spread.
        detectable: the true difference that would be found with probability 0.8 at the level corrected for the family.
        settled: what would settle an inconclusive pair.
    """

    a: str
    b: str
    n: int
    same_seeds: bool
    difference: Interval
    level: float
    found: Estimate
    errors: Interval | None
    p: float | None
    p_holm: float | None
    p_equivalent: float | None
    improvement: Interval
    correlation: float | None
    detectable: float | None
    settled: Settled | None
    verdict: Verdict | None
    refusal: Refusal | None

    @property
    def told(self) -> str:
        """Return the verdict as a word; `no verdict` where there is none."""
        return self.verdict or "no verdict"

    def flipped(self) -> Pair:
        """Return the same pair seen from the other side."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            difference=_mirrored(self.difference, 0.0),
            found=replace(self.found, mean=-self.found.mean),
            errors=None if self.errors is None else _inverted(self.errors),
            improvement=_mirrored(self.improvement, 1.0),
            verdict=None if self.verdict is None else _OPPOSITE.get(self.verdict, self.verdict),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return _json(self)


@dataclass(frozen=True)
class Judgement:
    """The verdicts of a comparison, with everything they rest on.

    Attributes:
        measure: what was scored, in words: "held-out accuracy".
        scope: task, model, cost, rate and seeds that it holds for, in words.
        standings: of every algorithm with a score, the highest mean first.
        pairs: the family's questions, `a` the one with the higher mean, in the order of the standings.
        margin: differences below it are too small to matter.
        level: largest chance of any wrong better or worse, and of any wrong equivalent.
        refusal: why there is no verdict on any pair, if there is none.
    """

    measure: str
    scope: str
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    margin: float
    level: float
    refusal: Refusal | None = None

    def pair(self, a: str, b: str) -> Pair:
        """Return the pair of two algorithms, seen from the first. Raises KeyError if there is none."""
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
            if (pair.a, pair.b) == (b, a):
                return pair.flipped()
        raise KeyError(f"{a} and {b} were not compared")

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "measure": self.measure,
            "scope": self.scope,
            "margin": self.margin,
            "level": self.level,
            "refusal": None if self.refusal is None else vars(self.refusal),
            "standings": [standing.as_dict() for standing in self.standings],
            "pairs": [pair.as_dict() for pair in self.pairs],
        }


def _mirrored(one: Interval, total: float) -> Interval:
    """Return the interval of `total` - x."""
    low, high = (None if side is None else total - side for side in (one.high, one.low))
    return Interval(total - one.mean, low, high, one.n)


def _inverted(one: Interval) -> Interval:
    """Return the interval of 1 / x."""
    low, high = (None if side is None else 1 / side for side in (one.high, one.low))
    return Interval(1 / one.mean, low, high, one.n)


def _json(value: Any) -> dict[str, Any]:
    def told(item: Any) -> Any:
        if isinstance(item, Interval | Estimate):
            return item.as_dict()
        return vars(item) if isinstance(item, Settled | Refusal) else item

    return {field.name: told(getattr(value, field.name)) for field in fields(value)}
