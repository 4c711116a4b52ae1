"""Notes below a table: failed runs, the meaning of controls, and budgets that were not spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def failures(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per failed run."""
    return [f"FAILED {s['name']}: {s['failure']}" for s in summaries if s["state"] == "failed"]


CONTROLS = {
    "same": "+same is the first objective on other seeds, so that any difference is chance",
    "random_reward": "+random_reward learns from coin flips, so that any gain is not from the reward",
    "frozen": "+frozen is never updated",
}


def controls(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line that explains the controls among the rows."""
    rows = {s["objective"] for s in summaries}
    told = [words for control, words in CONTROLS.items() if any(row.endswith(f"+{control}") for row in rows)]
    return [f"Controls: {'; '.join(told)}."] if told else []


def misfits(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the warnings of the objectives' parts: constants chosen for another setting."""
    return list(dict.fromkeys(warning for s in summaries for warning in s.get("warnings", ())))


def unspent(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on the runs that ended by their number of steps before they had spent their budget."""
    short = [s for s in summaries if s.get("budget") is not None and s["ended"] == "steps"]
    if not short:
        return []
    return [
        f"{len(short)} of {len(summaries)} runs made all {short[0]['step']} steps without spending their budget, "
        f"{short[0]['budget']}: raise train.steps for equal budgets."
    ]
