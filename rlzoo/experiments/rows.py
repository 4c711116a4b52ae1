"""A row of a comparison's table: one objective's outcome over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlzoo.stats.estimates import mean_of
from rlzoo.stats.intervals import Interval, interval, paired
from rlzoo.stats.scores import Trace, final_scores, first_scores, gains


@dataclass(frozen=True)
class Row:
    """One objective's outcome over its seeds. Accuracies are held-out; tokens and seconds are means per run.

    Attributes:
        before, after, gain: intervals over seeds and problems; None without an evaluation. Failed runs count.
        tokens_sampled: everything that was sampled, also what selection discarded.
        engine_s: this algorithm's share of the time in which its runs shared batches with others.
        tuned: the setting that was chosen for this objective, and its value.
        pass_k: the largest k that pass@k was measured for, before and after; None with one response per prompt.
    """

    objective: str
    seeds: int
    failed: int
    before: Interval | None
    after: Interval | None
    gain: Interval | None
    length_before: float | None
    length_after: float | None
    updates: float
    tokens_sampled: float
    tokens_discarded: float
    engine_s: float
    tuned: dict[str, float] | None = None
    pass_k: int | None = None
    pass_before: Interval | None = None
    pass_after: Interval | None = None
    pass_gain: Interval | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {k: v.as_dict() if isinstance(v, Interval) else v for k, v in self.__dict__.items()}


def summary_row(objective: str, summaries: Sequence[Mapping[str, Any]], traces: Sequence[Trace]) -> Row:
    """Summarize one objective's runs, failed ones included, from their summaries and records."""
    before, after = (of(traces).get(objective, {}) for of in (first_scores, final_scores))
    scored = [s for s in summaries if s["after"]]

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return Row(
        objective=objective,
        seeds=len(summaries),
        failed=sum(s["state"] == "failed" for s in summaries),
        before=mean_of(list(before.values())).share() if before else None,
        after=mean_of(list(after.values())).share() if after else None,
        gain=gains(traces)[objective].interval() if after else None,
        length_before=mean([s["before"]["length"] for s in scored]),
        length_after=mean([s["after"]["length"] for s in scored]),
        **{
            key: mean([s[key] for s in summaries]) or 0.0
            for key in ("updates", "tokens_sampled", "tokens_discarded", "engine_s")
        },
        **_pass_at_k(scored),
    )


def _pass_at_k(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize pass@k, before and after, at the largest k that was measured; {} where none was."""
    ks = [int(key.removeprefix("pass@")) for s in scored for key in s["after"] if key.startswith("pass@")]
    if not ks:
        return {}
    before, after = ({s["seed"]: s[end][f"pass@{max(ks)}"] for s in scored} for end in ("before", "after"))
    return {
        "pass_k": max(ks),
        "pass_before": interval(list(before.values())),
        "pass_after": interval(list(after.values())),
        "pass_gain": paired(after, before),
    }
