"""Amounts in a sentence or a table cell: times and counts."""

from __future__ import annotations


def clock_time(seconds: float) -> str:
    """Write seconds as m:ss, or h:mm:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def short_count(number: float) -> str:
    """Write a count with three digits: 950, 12.3k, 4.56M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:#.3g}".rstrip(".") + unit
    return f"{number:.0f}"
