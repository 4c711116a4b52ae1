"""The report of a comparison that is running: made again now and then, for at most a hundredth of the time."""

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
"""Of the time, at most, for making it."""


class LiveReport:
    """Passes records on, and writes the report whenever it is time: a reader of `OnRecord`.

    A report that cannot be written is a warning, and is tried again when it is due.
    The page takes longer the more there is to show, so the time between two of them grows with it.
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
