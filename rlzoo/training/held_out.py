"""The problems that a run is scored on: distinct ones of a task's test split, divided by a hash into two.

    validation    a quarter: learning curves, tuning, every choice that looks at results
    test          the rest: the first and the last evaluation of a run, and verdicts

Training, validation and test are disjoint: no problem of the test split is trained on, and two problems that reveal
each other's answer (`Task.identity`) are in the same split. A small task may have fewer distinct problems than asked
for; the evaluation then uses all of them and records their number.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Literal
from weakref import WeakKeyDictionary

from rlzoo.config.limits import check_problems
from rlzoo.errors import UserError
from rlzoo.tasks import Task
from rlzoo.tasks.problem import Problem

HeldOut = Literal["validation", "test"]
Count = int | Literal["all"]
VALIDATION = 4
"""One held-out identity in this many is for validation, and at least one where there are two or more."""
PATIENCE = 500
"""After this many draws from an endless task without a new problem, the task is assumed to have no more."""
MANY = 1000
"""An endless task that has this many problems may well have as many as memory holds."""

_found: WeakKeyDictionary[Task, dict[tuple[HeldOut, Count], list[Problem]]] = WeakKeyDictionary()


def held_out(task: Task, split: HeldOut, count: Count) -> list[Problem]:
    """Return `count` distinct problems of a split, or all of fewer; "all": every row of both, repeated ones too.

    A finite split is taken in the order of a hash, as data sets are often sorted by subject; an endless one in its own.

    A task that holds out a single problem has it for validation, and no test.

    Raises:
        UserError: all problems of a task that has no end of them.
    """
    known = _found.setdefault(task, {})
    if (split, count) not in known:
        known[split, count] = _every(task) if count == "all" else _search(task, split, count)
    return known[split, count]


def _every(task: Task) -> list[Problem]:
    size = task.size("test")
    if size is None:
        raise UserError(
            f"evaluation.prompts = 'all', and task {task.name!r} draws its held-out problems without end: give a number"
        )
    return [task.problem("test", i) for i in range(size)]


def _search(task: Task, split: HeldOut, count: int) -> list[Problem]:
    size = task.size("test")
    if size is not None:
        problems = {repr(problem.prompt): problem for problem in (task.problem("test", i) for i in range(size))}
        ranked = sorted({task.identity(problem) for problem in problems.values()}, key=_digest)
        of_validation = set(ranked[: math.ceil(len(ranked) / VALIDATION)])
        wanted = [p for p in problems.values() if (task.identity(p) in of_validation) == (split == "validation")]
        return sorted(wanted, key=lambda problem: _digest(repr(problem.prompt)))[:count]
    found: dict[str, Problem] = {}
    index = since = 0
    while len(found) < count and since < PATIENCE:
        problem = task.problem("test", index)
        index, since = index + 1, since + 1
        text = repr(problem.prompt)
        if text not in found and (_digest(task.identity(problem)) % VALIDATION == 0) == (split == "validation"):
            found[text] = problem
            since = 0
            if len(found) == MANY:
                check_problems(count, task.name)
    return list(found.values())


def _digest(identity: str) -> int:
    """Return a hash that is equal on every machine."""
    return int.from_bytes(blake2b(f"held out|{identity}".encode(), digest_size=8).digest(), "big")
