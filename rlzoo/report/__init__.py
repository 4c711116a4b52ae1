"""The report of a comparison: one file that opens offline, made from its run folders alone, at any moment."""

from rlzoo.report.live import LiveReport
from rlzoo.report.page import write_report, write_tables

__all__ = ["LiveReport", "write_report", "write_tables"]
