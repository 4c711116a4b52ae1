"""Where the runs of a fleet meet, and how they come back from there after a kill.

Every `save_every` steps a run waits until all others of its process wait as well or have ended, and all save. Runs
advance at different paces (dynamic sampling takes more rounds), so what they have in common is the number of meetings.
A kill may come between two saves of one meeting: each run keeps its last two checkpoints, and

    common meeting  =  the newest that every unfinished run has a checkpoint of

is where all go on from, those too that have ended since. They share the batches that they would have shared without the
kill, so rounding is the same, and every file ends with the same bytes (float32 on a CPU, and as long as grading keeps
up: a batch waits for a slow grader two seconds at least, not for ever).

Cost: at a meeting the fast runs wait for the slowest, and the batches until then are smaller; the second checkpoint
takes 12 bytes per adapter parameter of disk until the fleet has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlzoo.store.run_folder import BEFORE
from rlzoo.training.run import Run

BEGINNING = 0
"""Number of the meeting at which a run begins, and of which it has no checkpoint."""


def go_back_together(runs: Sequence[Run]) -> None:
    """Put the runs of one process back to their common meeting, if they have one; else each stays at its last.

    They have none where runs were added to a folder, or where one failed long before the others.
    """
    last = {run: run.folder.read_state() for run in runs}
    before = {run: _before(run) for run in runs}
    kept = [{_meeting(last[run]), before[run]} - {None} for run in runs if not _has_ended(last[run])]
    common = max(set.intersection(*kept), default=None) if kept else None
    for run in runs:
        at_last = not _has_ended(last[run]) and _meeting(last[run]) == common
        if common is not None and not at_last and before[run] == common:
            run.folder.go_back()


def has_settled(run: Run) -> bool:
    """Whether a run has ended, and the fleet that it was trained in as well."""
    return _before(run) is None and _has_ended(run.folder.read_state())


def _before(run: Run) -> int | None:
    """The meeting of the checkpoint before the last, if there is one."""
    saved = run.folder.read_state(BEFORE)
    return None if saved is None else _meeting(saved)


def _meeting(saved: dict[str, Any] | None) -> int:
    return BEGINNING if saved is None or saved["state"] is None else saved["state"].get("meeting", BEGINNING)


def _has_ended(saved: dict[str, Any] | None) -> bool:
    return saved is not None and saved["state"] is not None and saved["state"]["summary"] is not None
