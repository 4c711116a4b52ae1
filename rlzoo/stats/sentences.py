"""Verdicts as sentences, one pair a line: what is better, equivalent or inconclusive, and why there is no verdict.

Scores are shares, so a difference of 0.046 is 4.6 points. The sentences fit on a screen; omitted pairs are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlzoo.stats.intervals import Interval
from rlzoo.stats.verdicts import Judgement, Pair, Standing

LISTED = 5
"""Pairs, or names, that one kind of verdict lists."""
SATURATED = 0.95
"""From this mean accuracy on a task leaves few errors to compare algorithms by."""
ORDER = ("better", "equivalent", "inconclusive")


def sentences(judgement: Judgement) -> list[str]:
    """Return a judgement in words, the most important first; [] without a score. The scope is not repeated here."""
    standings = judgement.standings
    if not standings:
        return []
    lines = [_lead(judgement)]
    for verdict in ORDER:
        found = [_forward(pair) for pair in judgement.pairs if _forward(pair).verdict == verdict]
        lines += [_pair(pair, judgement) for pair in found[:LISTED]]
        lines += _left_out(len(found) - LISTED, verdict)
    if judgement.refusal is None:
        lines += _refused(judgement.pairs)
    saturated = saturation(standings)
    lost = [f"{one.algorithm} on {one.collapse_rate:.0%} of its seeds" for one in standings if one.collapse_rate]
    return lines + ([saturated] if saturated else []) + ([f"Collapsed: {listed(lost)}."] if lost else [])


def saturation(standings: Sequence[Standing]) -> str | None:
    """Return a sentence where the task is too easy to separate algorithms, None elsewhere."""
    best = standings[0].mean.mean if standings else 0.0
    if best < SATURATED:
        return None
    return f"Ceiling: the best row has {share(standings[0].mean)}, so few errors are left to compare rows by."


def points(value: float) -> str:
    """Write a difference of shares in points: `4.6 points`."""
    text = _signless(value)
    return f"{text} point" + ("" if text == "1.0" else "s")


def share(one: Interval) -> str:
    """Write a mean share in percent: `94.8%`."""
    return f"{100 * one.mean:.1f}%"


def seeds(n: int) -> str:
    """Write how many seeds: `8 seeds`."""
    return f"{n} seed{'s' if n > 1 else ''}"


def support(pair: Pair) -> str:
    """Write what a difference rests on: `[2.9, 6.3], 8 seeds, 1,024 problems`."""
    told = [seeds(pair.n) + ("" if pair.same_seeds else " of its own each")]
    if pair.found.problems is not None:
        told.append(f"{pair.found.problems:,} problems")
    one = pair.difference
    if one.low is not None and one.high is not None:
        told.insert(0, f"[{_signless(one.low)}, {_signless(one.high)}]")
    return ", ".join(told)


def listed(names: Sequence[str], comma: str = ", ") -> str:
    """Join names: `a, b and c`; of many, the first few and how many more."""
    if len(names) > LISTED:
        return f"{comma.join(names[:LISTED])}{comma}and {len(names) - LISTED} more"
    if comma != ", " or len(names) == 1:
        return comma.join(names)
    return f"{comma.join(names[:-1])} and {names[-1]}"


def _lead(judgement: Judgement) -> str:
    standings = judgement.standings
    first = standings[0]
    if len(standings) == 1:
        return f"{first.algorithm}: mean {judgement.measure} {share(first.mean)} ({seeds(first.n)})."
    if judgement.refusal is not None:
        return f"No verdict: {judgement.refusal.reason}."
    against = [pair for pair in judgement.pairs if first.algorithm in (pair.a, pair.b)]
    better = [pair for pair in against if _forward(pair).verdict == "better" and _forward(pair).a == first.algorithm]
    if len(against) == len(standings) - 1 and len(better) == len(against):
        others = standings[1].algorithm if len(against) == 1 else f"each of the other {len(against)} rows"
        return f"{first.algorithm} is better than {others}: {share(first.mean)}."
    means = [f"{one.algorithm} {share(one.mean)}" for one in standings]
    return f"No row is better than all others. Mean {judgement.measure}: {listed(means)}."


def _pair(pair: Pair, judgement: Judgement) -> str:
    by = f"{_signed(pair.difference.mean)} points {support(pair)}"
    if pair.verdict == "better":
        return f"{pair.a} is better than {pair.b}: {by}{_errors(pair)}."
    if pair.verdict == "equivalent":
        return f"{pair.a} and {pair.b} are equivalent within {points(judgement.margin)}: {by}{_errors(pair)}."
    settled = f" {pair.settled.words}" if pair.settled else ""
    return f"{pair.a} against {pair.b} is inconclusive: {by}{_errors(pair)}.{settled}"


def _errors(pair: Pair) -> str:
    if pair.errors is None or pair.errors.low is None or pair.errors.high is None:
        return ""
    return f"; {pair.b} makes {pair.errors.mean:.2g} times the errors [{pair.errors.low:.2g}, {pair.errors.high:.2g}]"


def _refused(pairs: Sequence[Pair]) -> list[str]:
    found = [pair for pair in pairs if pair.refusal is not None]
    lines = [
        f"No verdict on {pair.a} against {pair.b}: {pair.refusal.reason}." for pair in found[:LISTED] if pair.refusal
    ]
    return lines + _left_out(len(found) - LISTED, "without a verdict")


def _forward(pair: Pair) -> Pair:
    """The pair seen from the side that is better, if one is."""
    return pair.flipped() if pair.verdict == "worse" else pair


def _left_out(count: int, what: str) -> list[str]:
    return [] if count <= 0 else [f"{count} more pair{'s' if count > 1 else ''} {'are' if count > 1 else 'is'} {what}."]


def _signed(value: float) -> str:
    text = _signless(value)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def _signless(value: float) -> str:
    """Write points, zero without a sign."""
    text = f"{100 * value:.1f}"
    return "0.0" if math.isclose(float(text), 0.0) else text
