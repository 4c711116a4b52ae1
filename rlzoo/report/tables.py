"""Tables of a report, and their forms as Markdown, CSV and LaTeX, each with its own escaping.

CSV has plain numbers (shares, tokens, seconds); an interval fills three columns: mean, low and high.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rlzoo.report.progress import clock_time, short_count
from rlzoo.report.text import visible
from rlzoo.stats.intervals import Interval

Form = Literal["text", "percent", "points", "count", "number", "seconds", "share", "p"]
Value = str | float | Interval | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        form: percent and points are of shares and differences of shares, share is a probability, p a p-value.
    """

    key: str
    heading: str
    form: Form = "text"
    unit: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values under columns; `name` is that of its files."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]


def shown(value: Value, form: Form) -> str:
    """Write a value for people: `84.1 ± 3.9`, `12.3k`; an empty text for None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return visible(value).replace("\n", " ")
    if isinstance(value, Interval):
        return _interval(value, form)
    if form in ("percent", "points"):
        return f"{100 * value:{'+' if form == 'points' else ''}.1f}"
    if form == "count":
        return short_count(value)
    if form == "seconds":
        return clock_time(value)
    if form == "share":
        return f"{value:.2f}"
    if form == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"{value:.1f}"


def sort_key(value: Value) -> str:
    """Return the key to sort by: the number, an interval's mean, or the text; empty for None, which sorts last."""
    found = value.mean if isinstance(value, Interval) else value
    return "" if found is None else found if isinstance(found, str) else repr(float(found))


def _interval(value: Interval, form: Form) -> str:
    mean = shown(value.mean, form)
    if value.low is None or value.high is None:
        return mean
    low, high = shown(value.low, form), shown(value.high, form)
    if form == "share" or abs((value.high - value.mean) - (value.mean - value.low)) > 5e-4:
        return f"{mean} ({low} to {high})"
    return f"{mean} ± {shown(value.high - value.mean, 'percent' if form == 'points' else form)}"


def as_csv(table: Table) -> str:
    """Return a table as CSV (RFC 4180), with a line of keys first."""
    wide = {
        column.key for column in table.columns if any(isinstance(row.get(column.key), Interval) for row in table.rows)
    }
    out = io.StringIO()
    writer = csv.writer(out)
    keys = [[c.key, f"{c.key}_low", f"{c.key}_high"] if c.key in wide else [c.key] for c in table.columns]
    writer.writerow([key for group in keys for key in group])
    for row in table.rows:
        cells: list[object] = []
        for column in table.columns:
            value = row.get(column.key)
            if isinstance(value, Interval):
                cells += [value.mean, value.low, value.high]
            else:
                cells += [_inert(value) if isinstance(value, str) else value] + [None] * (2 * (column.key in wide))
        writer.writerow(cells)
    return out.getvalue()


def _inert(text: str) -> str:
    """Keep a spreadsheet from reading text as a formula, which begins with one of four signs."""
    text = visible(text).replace("\n", " ").replace("\t", " ")
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def as_markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown; text is escaped, so that it is neither markup nor HTML."""
    lines = [
        _markdown_row([_heading(column) for column in table.columns]),
        _markdown_row(["---" if column.form == "text" else "---:" for column in table.columns], escape=False),
    ]
    lines += [_markdown_row([shown(row.get(c.key), c.form) for c in table.columns]) for row in table.rows]
    return "\n".join([*lines, "", _markdown(table.caption)]) + "\n"


def _markdown_row(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(map(_markdown, cells) if escape else cells) + " |"


def _markdown(text: str) -> str:
    text = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_latex(table: Table) -> str:
    """Return a table as LaTeX for the package booktabs."""
    align = "".join("l" if column.form == "text" else "r" for column in table.columns)

    def row(cells: Sequence[str]) -> str:
        return "  " + " & ".join(map(_latex, cells)) + r" \\"

    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            rf"  \caption{{{_latex(table.caption)}}}",
            rf"  \label{{tab:{table.name}}}",
            rf"  \begin{{tabular}}{{{align}}}",
            r"  \toprule",
            row([_heading(column) for column in table.columns]),
            r"  \midrule",
            *(row([shown(line.get(c.key), c.form) for c in table.columns]) for line in table.rows),
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
}


def _latex(text: str) -> str:
    # A cell that begins with a bracket would be read as an argument of the line break before it.
    return re.sub(r"^\[", "{[}", "".join(_LATEX.get(sign, sign) for sign in text))


def _heading(column: Column) -> str:
    unit = column.unit or {"percent": "%", "points": "points"}.get(column.form, "")
    return f"{column.heading} ({unit})" if unit and column.heading else column.heading


FORMATS = {"md": as_markdown, "csv": as_csv, "tex": as_latex}
"""Suffix of a file -> what writes it."""
