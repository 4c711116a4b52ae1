"""Contrasts of an ablation: weighted sums of rows' final accuracies, taken seed by seed and problem by problem.

    y(contrast) = sum over rows of weight(row) y(row);    the weights add up to 0

The contrasts are the family of questions: Holm's correction is over them, and each has one of the four verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlzoo.config.plan import Plan
from rlzoo.experiments.ablation_plan import Contrast
from rlzoo.stats.crossed import Estimate
from rlzoo.stats.estimates import contrast_of
from rlzoo.stats.intervals import Interval
from rlzoo.stats.judge import decide
from rlzoo.stats.preconditions import by_row, refuse_pair
from rlzoo.stats.scores import Trace, final_scores
from rlzoo.stats.verdicts import Judgement, Refusal, Verdict


@dataclass(frozen=True)
class Measured:
    """A contrast with its outcome.

    Attributes:
        difference: with the interval at which Holm's procedure tests it; None where its rows share no seed.
        verdict: better, worse, equivalent or inconclusive; None where `refusal` says why there is none.
    """

    contrast: Contrast
    difference: Interval | None
    verdict: Verdict | None = None
    refusal: Refusal | None = None

    @property
    def resolved(self) -> bool:
        """Whether there is a verdict that says more than inconclusive."""
        return self.verdict not in (None, "inconclusive")

    @property
    def told(self) -> str:
        """Return the verdict, or why there is none."""
        return self.verdict or (f"no verdict: {self.refusal.reason}" if self.refusal else "no verdict")

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        difference = None if self.difference is None else self.difference.as_dict()
        refusal = None if self.refusal is None else vars(self.refusal)
        return {**self.contrast.__dict__, "difference": difference, "verdict": self.verdict, "refusal": refusal}


def measure(contrasts: Sequence[Contrast], traces: Sequence[Trace], plan: Plan, judgement: Judgement) -> list[Measured]:
    """Judge contrasts of final accuracies, over the seeds that all rows of a contrast have, failed runs included.

    Args:
        plan: its margin and budget apply to contrasts too.
        judgement: of the comparison: its level and its refusal of all verdicts hold here too.
    """
    scores, rows = final_scores(traces), by_row(traces)
    found: list[Estimate | None] = []
    refusals: list[Refusal | None] = []
    for contrast in contrasts:
        names = list(contrast.weights)
        seeds = sorted(set[int].intersection(*(set(scores.get(name, {})) for name in names)))
        table = [[scores[name][seed] for seed in seeds] for name in names] if seeds else []
        found.append(contrast_of(table, list(contrast.weights.values())) if seeds else None)
        refusal = judgement.refusal
        if refusal is None and seeds and len(names) == 2:
            refusal = refuse_pair(rows[names[0]], rows[names[1]], plan)
        if refusal is None and len(seeds) < 2:
            refusal = Refusal("one seed", "its rows share no seed" if not seeds else "one seed has no interval")
        refusals.append(refusal)
    known = [(one, refusal is not None) for one, refusal in zip(found, refusals, strict=True) if one is not None]
    decided = iter(decide([one for one, _ in known], plan.margin, judgement.level, refused=[no for _, no in known]))
    measured = []
    for contrast, one, refusal in zip(contrasts, found, refusals, strict=True):
        decision = next(decided) if one is not None else None
        difference = one.interval(decision.level) if one is not None and decision is not None else None
        measured.append(Measured(contrast, difference, decision.verdict if decision else None, refusal))
    return measured
