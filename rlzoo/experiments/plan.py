"""plan.json in a comparison's folder: the plan, when it was changed, and how often its data were judged.

    {"plan": {...}, "analyses": [{"date", "kind", "changes", "ended", "judged"}, ...]}

Each analysis is one version of the plan. Its first complete judgement is a look, and look k has a smaller level than
look k - 1 (`rlzoo.stats.spending`): adding seeds, or changing the margin after the fact, has its cost and its date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlzoo.config.plan import PLAN, Plan
from rlzoo.store.run_folder import SUMMARY, RunFolder

DECLARED, EXTENDED, CHANGED = "declared", "more seeds", "new analysis"


@dataclass(frozen=True)
class Declared:
    """A plan and its history.

    Attributes:
        analyses: one entry per version: date, kind, changes {field: [before, after]}, how many runs had ended, and when
            it was judged first, if it was.
    """

    plan: Plan
    analyses: Sequence[Mapping[str, Any]]

    @property
    def look(self) -> int:
        """Return the number of the next judgement of this version, counted from 1."""
        before = sum(analysis.get("judged") is not None for analysis in self.analyses[:-1])
        return before + 1

    @property
    def notes(self) -> list[str]:
        """Return what a reader must know of the plan's history, in sentences."""
        lines = [_note(analysis) for analysis in self.analyses if analysis["kind"] != DECLARED or analysis["ended"]]
        if self.look > 1:
            lines.append(f"The data were judged {self.look} times; each time the level is smaller.")
        return lines


def read_plan(folder: Path) -> Declared | None:
    """Return a folder's plan; None where there is none."""
    if not (folder / PLAN).is_file():
        return None
    stored = RunFolder(folder).read_json(PLAN)
    return Declared(Plan.model_validate(stored["plan"]), stored["analyses"])


def declare(folder: Path, plan: Plan) -> Declared:
    """Write a plan before its runs begin, or record how it differs from the one that is there."""
    known = read_plan(folder)
    if known is not None and known.plan == plan:
        return known
    changes = {} if known is None else known.plan.differences(plan)
    more = set(changes) == {"seeds"} and known is not None and set(known.plan.seeds) <= set(plan.seeds)
    analysis = {
        "date": _now(),
        "kind": DECLARED if known is None else EXTENDED if more else CHANGED,
        "changes": {name: list(pair) for name, pair in changes.items()},
        "ended": len(list(folder.glob(f"*/*/*/{SUMMARY}" if plan.tasks else f"*/*/{SUMMARY}"))),
    }
    made = Declared(plan, [*(known.analyses if known else ()), analysis])
    _write(folder, made)
    return made


def judged(folder: Path, declared: Declared) -> Declared:
    """Record that a complete plan is judged now, if it is the first time for this version."""
    *earlier, last = declared.analyses
    if last.get("judged") is not None:
        return declared
    made = Declared(declared.plan, [*earlier, {**last, "judged": _now()}])
    _write(folder, made)
    return made


def _write(folder: Path, declared: Declared) -> None:
    target = RunFolder(folder)
    with target.safely("make the folder"):
        folder.mkdir(parents=True, exist_ok=True)
    target.write_json(PLAN, {"plan": declared.plan.model_dump(mode="json"), "analyses": list(declared.analyses)})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _note(analysis: Mapping[str, Any]) -> str:
    ended = analysis["ended"]
    runs = f"after {ended} run{'s' if ended != 1 else ''} had ended"
    if analysis["kind"] == DECLARED:
        return f"The plan was written on {analysis['date']}, {runs}."
    changes = "; ".join(f"{name} from {_told(old)} to {_told(new)}" for name, (old, new) in analysis["changes"].items())
    what = "Seeds were added" if analysis["kind"] == EXTENDED else "New analysis"
    return f"{what} on {analysis['date']}, {runs}: {changes}."


def _told(value: Any) -> str:
    if isinstance(value, list):
        return (
            f"{len(value)} ({', '.join(map(str, value[:6]))}{', ...' if len(value) > 6 else ''})" if value else "none"
        )
    return "none" if value is None else str(value)
