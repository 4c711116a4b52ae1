"""A verdict for every question of a comparison, from the scores of its rows over seeds and problems.

    equivalent       the difference is within +- margin: two one-sided tests, Holm's p over the family < level
    better, worse    it is not 0: two-sided, Holm's p over the family < level
    inconclusive     neither
    none             a precondition does not hold (`Refusal`): the data cannot carry any of the four words

A question is a pair of rows or an ablation's contrast; the plan declares the family. Each of the two kinds of claims is
corrected by itself: the chance of any wrong better or worse is at most `level`, and so is that of any wrong equivalent.
A difference shown to be below the margin is equivalent even if it is shown not to be 0.

Standard errors are over seeds and problems (`rlzoo.stats.crossed`). Near the ceiling, where both means are above 90%,
the margin shrinks with the errors that are left: 2 points at 90% are a fifth of the errors, and a fifth it stays. There
the ratio of the errors is judged, on the scale of its logarithm.

The interval drawn for a pair has the level at which Holm's procedure tests it. It leaves out 0 exactly if that test
finds a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from rlzoo.config.comparison import MARGIN
from rlzoo.stats import tests
from rlzoo.stats.crossed import UNKNOWN_PROBLEMS, Estimate
from rlzoo.stats.estimates import Score, Scores, contrast_of, mean_of
from rlzoo.stats.intervals import CONFIDENCE, Interval
from rlzoo.stats.power import settled
from rlzoo.stats.verdicts import Decision, Judgement, Pair, Refusal, Standing, Verdict

CEILING = 0.9
"""Above this mean accuracy of both rows their errors are compared, not their accuracies."""


def judge(
    scores: Scores,
    *,
    margin: float = MARGIN,
    level: float = 1 - CONFIDENCE,
    questions: Sequence[tuple[str, str]] | None = None,
    refuse: Callable[[str, str], Refusal | None] | None = None,
    refusal: Refusal | None = None,
    collapsed: Mapping[str, Collection[int]] | None = None,
    problems: int = UNKNOWN_PROBLEMS,
    strata: Sequence[int] | None = None,
    measure: str = "held-out accuracy",
    scope: str = "",
) -> Judgement:
    """Judge pairs of algorithms by their scores.

    Args:
        scores: algorithm -> seed -> accuracy, or accuracies on the same problems; rows without a seed are left out.
        margin: the smallest difference that matters, as a share.
        level: of the verdicts; the table's intervals always have 95%.
        questions: the family of pairs; None: every two of them.
        refuse: (a, b) -> why there is no verdict on this pair, or None.
        refusal: why there is no verdict on any pair.
        collapsed: algorithm -> its seeds that collapsed; None: not known.
        problems: behind a score that is a single number.
        strata: number of problems of each task, where scores are over several (`rlzoo.stats.over_tasks`).

    Raises:
        ValueError: a score is not finite, the margin is not positive, or the level not between 0 and 1.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin must be a positive number, the smallest difference that matters, got {margin}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    standings = [
        standing(name, seeds, problems, None if collapsed is None else collapsed.get(name, ()), strata)
        for name, seeds in scores.items()
        if seeds
    ]
    standings.sort(key=lambda one: -one.mean.mean)  # stable: ties stay in the order given
    ranked = [one.algorithm for one in standings]
    family = list(combinations(ranked, 2))
    if questions is not None:
        asked = {frozenset(question) for question in questions}
        family = [(a, b) for a, b in family if frozenset((a, b)) in asked]
    pairs = _pairs(
        scores, family, margin, level, problems, strata, lambda a, b: refusal or (refuse and refuse(a, b)) or None
    )
    return Judgement(measure, scope, tuple(standings), tuple(pairs), margin, level, refusal)


def standing(
    name: str,
    seeds: Mapping[int, Score],
    problems: int = UNKNOWN_PROBLEMS,
    lost: Collection[int] | None = None,
    strata: Sequence[int] | None = None,
) -> Standing:
    """Return what one algorithm's scores are by themselves."""
    values = [float(np.mean(score)) for score in seeds.values()]
    mean = mean_of(list(seeds.values()), problems, strata).share()
    rate = None if lost is None else len(set(lost)) / len(seeds.keys() | set(lost))
    return Standing(name, len(values), mean, tests.interquartile_mean(values), min(values), rate)


def decide(
    found: Sequence[Estimate],
    margin: float,
    level: float,
    errors: Sequence[Estimate | None] | None = None,
    refused: Sequence[bool] | None = None,
) -> list[Decision]:
    """Decide all questions of a family together.

    Args:
        found: the difference that each question asks for.
        errors: where both rows are near the ceiling, the logarithm of the ratio of their errors, judged instead.
        refused: questions without a verdict; they count in the family all the same.
    """
    judged = [log or one for one, log in zip(found, errors or [None] * len(found), strict=True)]
    margins = [margin if log is None else relative(margin) for log in errors or [None] * len(found)]
    several = [i for i, one in enumerate(found) if one.error is not None]
    p = [judged[i].difference_p() or 0.0 for i in several]
    within = [judged[i].equivalence_p(margins[i]) or 0.0 for i in several]
    family = len(found)
    p_holm, p_equivalent = tests.holm(p, family), tests.holm(within, family)
    levels = tests.holm_levels(p, level, family)
    decisions = [Decision(None, None, None, level / max(family, 1), "inconclusive") for _ in found]
    for i, alone, holm, equivalent, at in zip(several, p, p_holm, p_equivalent, levels, strict=True):
        verdict: Verdict = "inconclusive"
        if equivalent < level:
            verdict = "equivalent"
        elif holm < level:
            verdict = "better" if judged[i].mean > 0 else "worse"
        decisions[i] = Decision(alone, holm, equivalent, at, verdict)
    return [
        replace(one, verdict=None) if no else one
        for one, no in zip(decisions, refused or [False] * len(found), strict=True)
    ]


def relative(margin: float) -> float:
    """Return the margin as a difference of logarithms of errors: the one that it is where `CEILING` of all is right."""
    return math.log1p(margin / (1 - CEILING))


def _pairs(
    scores: Scores,
    family: Sequence[tuple[str, str]],
    margin: float,
    level: float,
    problems: int,
    strata: Sequence[int] | None,
    refuse: Callable[[str, str], Refusal | None],
) -> list[Pair]:
    matched = [_matched(scores[a], scores[b]) for a, b in family]
    found = [contrast_of(rows, (1.0, -1.0), problems, strata) for rows in matched]
    errors = [_errors(*rows, problems, strata) for rows in matched]
    refusals = [
        refuse(a, b) or (Refusal("one seed", "one seed has no interval") if one.error is None else None)
        for (a, b), one in zip(family, found, strict=True)
    ]
    decisions = decide(found, margin, level, errors, [refusal is not None for refusal in refusals])
    corrected = level / max(1, len(family))
    pairs = []
    for (a, b), rows, one, log, decision, refusal in zip(
        family, matched, found, errors, decisions, refusals, strict=True
    ):
        means = [[float(np.mean(score)) for score in row] for row in rows]
        ratio = None if log is None else _exponential(log.interval(decision.level))
        pairs.append(
            Pair(
                a,
                b,
                n=one.seeds,
                same_seeds=bool(scores[a].keys() & scores[b].keys()),
                difference=one.interval(decision.level),
                level=decision.level,
                found=one,
                errors=ratio,
                p=decision.p,
                p_holm=decision.p_holm,
                p_equivalent=decision.p_equivalent,
                improvement=tests.improvement(np.subtract(*means)),
                correlation=_correlation(*means),
                detectable=one.detectable(corrected),
                settled=settled(one, margin, corrected) if decision.verdict == "inconclusive" else None,
                verdict=decision.verdict,
                refusal=refusal,
            )
        )
    return pairs


def _matched(a: Mapping[int, Score], b: Mapping[int, Score]) -> tuple[list[Score], list[Score]]:
    """The scores on the seeds that both have; without a common seed, the i-th of one and the i-th of the other.

    Runs of different seeds are independent, and any fixed way to pair them is as good as any other.
    """
    shared = sorted(a.keys() & b.keys())
    seeds = list(zip(shared, shared, strict=True) if shared else zip(sorted(a), sorted(b), strict=False))
    return [a[one] for one, _ in seeds], [b[other] for _, other in seeds]


def _errors(
    a: Sequence[Score], b: Sequence[Score], problems: int, strata: Sequence[int] | None = None
) -> Estimate | None:
    """Estimate log(errors of b / errors of a), by its first-order expansion; None unless both are near the ceiling."""
    means = [float(np.mean([np.mean(score) for score in row])) for row in (a, b)]
    if not all(CEILING < mean <= 1 for mean in means):
        return None
    count = len(a) * (np.size(a[0]) if np.ndim(a[0]) else problems)
    left = [max(1 - mean, 0.5 / count) for mean in means]  # no error at all: as if half of one had been made
    log = contrast_of((a, b), (1 / left[0], -1 / left[1]), problems, strata)
    return replace(log, mean=math.log(left[1] / left[0]))


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 3 or np.std(a) < tests.EQUAL or np.std(b) < tests.EQUAL:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _exponential(one: Interval) -> Interval:
    low, high = (None if side is None else math.exp(min(side, 50.0)) for side in (one.low, one.high))
    return Interval(math.exp(min(one.mean, 50.0)), low, high, one.n)
