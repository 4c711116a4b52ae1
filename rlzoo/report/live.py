"""The report of a running comparison: written again from time to time, for at most a hundredth of the run's time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlzoo.report.page import write_report

EVERY = 30.0
"""Seconds between two versions of the page, if it is made quickly."""
SHARE = 0.01
"""Largest share of the time that is spent on it."""


class LiveReport:
    """A listener to records: it passes them on, and writes the report whenever that is due.

    A report that cannot be written is a warning; the next one is written when it is due. A long page takes longer to
    write, and the time between two versions grows with it.
    """

    def __init__(
        self,
        folder: Path,
        on_record: Callable[[str, dict[str, Any]], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.on_record = on_record
        self.clock = clock
        self.due = clock() + EVERY

    def __call__(self, run: str, record: dict[str, Any]) -> None:
        """Take in one record of a run."""
        if self.on_record is not None:
            self.on_record(run, record)
        now = self.clock()
        if now >= self.due:
            try:
                write_report(self.folder, live=True)
            except Exception as error:  # training is worth more than its report
                warnings.warn(f"the live report could not be written: {type(error).__name__}: {error}", stacklevel=2)
            self.due = self.clock() + max(EVERY, (self.clock() - now) / SHARE)
