"""Limits of this machine: memory, open files, integers. Settings beyond them are refused before anything starts.

The memory estimate is a lower bound of the need, so no setting that could work is refused.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from rlzoo.errors import UserError

LARGEST_INT = 2**63 - 1
"""Limit of tensor indices, counters and seeds."""
LARGEST_FLOAT = 3.4e38
"""Limit of float32, the format of losses, scalings and rates."""
ROW_BYTES = 8 + 4 + 4 + 2
"""Bytes of one sampled token: its id, log-prob, advantage and masks."""
RUN_BYTES = 4 * 4
"""Bytes of one trained parameter of a run: value, gradient and two moments, in float32."""
SETTINGS_BYTES = 2000
"""Bytes of the settings of one run, at least (measured: 3,200 with parts shared between runs)."""
PROBLEM_BYTES = 300
"""Bytes of one problem with a short prompt, at least (measured: 440)."""
FILES_BESIDE = 64
"""Number of open files besides those of the runs: libraries, data, pipes."""


def memory_bytes() -> int:
    """The memory that this process may use: the machine's, or its control group's, whichever is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # none there, or "max"
            limits.append(int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii")))
    return min(limits)


def check_memory(needed: float, what: str, remedy: str) -> None:
    """Refuse settings whose memory need exceeds this machine's.

    Raises:
        ValueError: more bytes are needed than the machine has.
    """
    there = memory_bytes()
    if needed > there:
        raise ValueError(
            f"{what} need at least {needed / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.1f}: {remedy}"
        )


def check_files(runs: int) -> None:
    """Refuse more runs than this system lets one process keep open.

    Raises:
        ValueError: the hard limit of open files is too low.
    """
    needed = runs + FILES_BESIDE
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"{runs} runs together keep about {needed} files open, and the system allows {hard} (ulimit -Hn): "
            "train fewer runs at once"
        )


def check_seeds(count: int) -> None:
    """Refuse more seeds than this machine can train, before their settings are made.

    Raises:
        ValueError: the settings alone do not fit into memory, or the system does not open that many files.
    """
    check_memory(SETTINGS_BYTES * count, f"the settings of {count:,} seeds", "name fewer")
    check_files(count)


def allow_files(runs: int) -> None:
    """Raise this process's limit of open files for `runs` runs.

    Raises:
        UserError: the system's limit is too low.
    """
    with as_user_error():
        check_files(runs)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < runs + FILES_BESIDE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (runs + FILES_BESIDE, hard))


def check_runs(runs: int, parameters: int) -> None:
    """Refuse more runs than fit into the memory of this machine.

    Raises:
        UserError: they do not fit.
    """
    with as_user_error():
        check_memory(
            RUN_BYTES * parameters * runs,
            f"{runs} runs of {parameters:,} trained parameters each",
            "train fewer seeds or objectives at once, or lower backbone.lora.r",
        )


def check_problems(count: int, task: str) -> None:
    """Refuse to look for more problems of an endless task than fit into the memory of this machine.

    Raises:
        UserError: they do not fit.
    """
    with as_user_error():
        check_memory(PROBLEM_BYTES * count, f"{count:,} problems of task {task!r}", "lower evaluation.prompts")


@contextlib.contextmanager
def as_user_error() -> Iterator[None]:
    """Context in which a ValueError becomes a UserError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from None
