"""The report of a comparison: one file that opens offline, made from its run folders alone, at any moment.

Here are pages, tables, charts and the live view. No training, and no statistics of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlzoo.report.live import LiveReport
    from rlzoo.report.page import write_report, write_tables

__all__ = ["LiveReport", "write_report", "write_tables"]

_HOME = {"LiveReport": "live", "write_report": "page", "write_tables": "page"}


def __getattr__(name: str) -> Any:
    """Import on first use: whoever wants `text` alone need not wait for the page's libraries."""
    if name in _HOME:
        return getattr(import_module(f"rlzoo.report.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
