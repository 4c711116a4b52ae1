"""Verdicts as sentences: better, worse, equivalent, inconclusive.

Scores are shares, so a difference of 0.046 is 4.6 points. The sentences fit on a screen; omitted pairs are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlzoo.stats.intervals import Interval

if TYPE_CHECKING:
    from rlzoo.stats.verdicts import Judgement, Pair, Verdict

LISTED = 5
"""Pairs, or names, that one kind of verdict lists."""


def sentences(judgement: Judgement) -> list[str]:
    """Return a judgement in words, the most important first; [] without a score."""
    standings = judgement.standings
    if not standings:
        return []
    leader = standings[0]
    if len(standings) == 1:
        return [f"{leader.algorithm} has a mean {judgement.measure} of {share(leader.mean)} {seeds(leader.n)}."]
    lines = [_lead(judgement), *_differences(judgement), *_equivalents(judgement), *_inconclusive(judgement)]
    lost = [f"{s.algorithm} on {s.collapse_rate:.0%} of its seeds" for s in standings if s.collapse_rate]
    return lines + ([f"Collapsed: {_listed(lost)}."] if lost else [])


def points(value: float) -> str:
    """Write a difference of shares in points: `4.6 points`."""
    text = f"{100 * value:.1f}"
    return f"{text} point" + ("" if text == "1.0" else "s")


def share(one: Interval) -> str:
    """Write a mean share in percent: `94.8%`."""
    return f"{100 * one.mean:.1f}%"


def seeds(n: int) -> str:
    """Write how many seeds: `(8 seeds)`."""
    return f"({n} seed{'s' if n > 1 else ''})"


def support(pair: Pair, confidence: float) -> str:
    """Write what a difference rests on: `(95% interval 2.9 to 6.3, 8 seeds)`, `(the same on each of 2 seeds)`."""
    one = pair.difference
    matched = f"{pair.n} seed" + ("s" if pair.n > 1 else "") + ("" if pair.same_seeds else " of its own each")
    if one.low is None or one.high is None:
        return f"({matched})"
    if math.isclose(one.low, one.high, abs_tol=1e-9):  # an interval of no width would look like certainty
        return f"(the same on each of {matched})"
    return f"({100 * confidence:g}% interval {_signless(one.low)} to {_signless(one.high)}, {matched})"


def _lead(judgement: Judgement) -> str:
    leader, runner_up = judgement.standings[:2]
    mine = [judgement.pair(leader.algorithm, other.algorithm) for other in judgement.standings[1:]]
    tied = math.isclose(leader.mean.mean, runner_up.mean.mean, abs_tol=1e-9)
    highest = (
        f"{leader.algorithm} {'shares' if tied else 'has'} the highest mean {judgement.measure}, {share(leader.mean)}"
    )
    if all(pair.n == 1 for pair in judgement.pairs):
        return f"{highest}, but one seed each allows no verdict."
    if _is_best(judgement):
        others = "" if len(mine) == 1 else f"each of the other {len(mine)}, than "
        by = f"{points(mine[0].difference.mean)} {support(mine[0], judgement.confidence)}"
        line = f"{leader.algorithm} is best in {judgement.measure}, {share(leader.mean)}: "
        return f"{line}better than {others}{runner_up.algorithm} by {by}."
    if len(mine) == 1:
        return f"{highest}; {runner_up.algorithm} has {share(runner_up.mean)}."
    told = []
    for verdict, words in _TOLD.items():
        names = [pair.b for pair in mine if pair.verdict == verdict]
        if names:
            told.append(
                f"{words} {_listed(names) if len(names) <= LISTED else f'{len(names)} of the {len(mine)} others'}"
            )
    return f"{highest}: {'; '.join(told)}."


_TOLD: dict[Verdict, str] = {
    "better": "better than",
    "equivalent": "equivalent to",
    "inconclusive": "inconclusive against",
    "worse": "worse, on the seeds that both have, than",
}


def _is_best(judgement: Judgement) -> bool:
    leader = judgement.standings[0].algorithm
    return all(judgement.pair(leader, other.algorithm).verdict == "better" for other in judgement.standings[1:])


def _differences(judgement: Judgement) -> list[str]:
    """The pairs with a better one, those of the leader first; what the first sentence said is left out."""
    found = [pair.flipped() if pair.verdict == "worse" else pair for pair in judgement.pairs]
    found = [pair for pair in found if pair.verdict == "better"]
    leader, runner_up = judgement.standings[:2]
    if _is_best(judgement):
        found = [pair for pair in found if (pair.a, pair.b) != (leader.algorithm, runner_up.algorithm)]
    lines = [
        f"{pair.a} is better than {pair.b} by {points(pair.difference.mean)} {support(pair, judgement.confidence)}."
        for pair in found[:LISTED]
    ]
    return lines + _left_out(len(found) - LISTED, "better or worse")


def _equivalents(judgement: Judgement) -> list[str]:
    found = [pair for pair in judgement.pairs if pair.verdict == "equivalent"]
    lines = [
        f"{pair.a} and {pair.b} are equivalent: less than {points(judgement.margin)} apart "
        f"{support(pair, judgement.confidence)}."
        for pair in found[:LISTED]
    ]
    return lines + _left_out(len(found) - LISTED, "equivalent")


def _inconclusive(judgement: Judgement) -> list[str]:
    found = [pair for pair in judgement.pairs if pair.verdict == "inconclusive" and pair.n > 1]
    if not found:
        return []
    counts = sorted({pair.n for pair in found})
    these = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    if len(judgement.pairs) == 1:
        (pair,) = found
        line = f"{pair.a} against {pair.b} is inconclusive: {points(pair.difference.mean)} "
        line += support(pair, judgement.confidence)
    else:
        line = f"{len(found)} of {len(judgement.pairs)} pairs are inconclusive with {these}: "
        line += _listed([f"{pair.a} and {pair.b}" for pair in found], "; ")
        if len(found) == len(judgement.pairs):
            line = f"All {len(found)} pairs are inconclusive with {these}"
    return [f"{line}.{_found([pair.detectable for pair in found if pair.detectable is not None])}"]


def _found(detectable: Sequence[float]) -> str:
    if not detectable:
        return ""
    if min(detectable) >= 1:
        return " Not even a difference from 0% to 100% would be found with probability 0.8."
    low, high = (f"{100 * value:.1f}" if value < 1 else "over 100" for value in (min(detectable), max(detectable)))
    span = f"{low} points" if low == high else f"{low} to {high} points (by pair)"
    return f" A true difference of {span} would be found with probability 0.8."


def _left_out(count: int, what: str) -> list[str]:
    return [] if count <= 0 else [f"{count} more pair{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} {what}."]


def _listed(names: Sequence[str], comma: str = ", ") -> str:
    if len(names) > LISTED:
        return f"{comma.join(names[:LISTED])}{comma}and {len(names) - LISTED} more"
    if comma != ", " or len(names) == 1:
        return comma.join(names)
    return f"{comma.join(names[:-1])} and {names[-1]}"


def _signless(value: float) -> str:
    """Write points, zero without a sign."""
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text
