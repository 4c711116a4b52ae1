"""Tables in three formats: the numbers by hand, and text that no format takes for more than text."""

from __future__ import annotations

import csv
import io
import re

import pytest

from rlzoo.report.tables import FORMATS, Column, Table, Value, as_csv, as_latex, as_markdown, shown
from rlzoo.stats.intervals import Interval

NASTY = "=a|b\\c_d&e%f<script>$x$ #`~^{}[y](z)\u2028"
TABLE = Table(
    "results",
    "100% of *it*",
    (Column("name", ""), Column("after", "after", "percent"), Column("tokens", "sampled", "count", "tokens")),
    (
        {"name": NASTY, "after": Interval(0.5, 0.4, 0.6, 3), "tokens": 12345.0},
        {"name": "b", "after": Interval(0.25, None, None, 1), "tokens": None},
    ),
)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (Interval(0.841, 0.802, 0.88, 4), "percent", "84.1 ± 3.9"),
        (Interval(-0.046, -0.063, -0.029, 4), "points", "-4.6 ± 1.7"),
        (Interval(0.5, 0.4, 0.55, 4), "percent", "50.0 (40.0 to 55.0)"),
        (Interval(0.046, None, None, 1), "points", "+4.6"),
        (Interval(0.9, 0.7, 1.0, 8), "share", "0.90 (0.70 to 1.00)"),
        (0.3333, "percent", "33.3"),
        (1234567.0, "count", "1.23M"),
        (75.0, "seconds", "1:15"),
        (0.0004, "p", "< 0.001"),
        (0.0312, "p", "0.031"),
        (None, "percent", ""),
        ("two\nlines", "text", "two lines"),
    ],
)
def test_values_as_people_write_them(value: Value, form: str, text: str) -> None:
    assert shown(value, form) == text  # type: ignore[arg-type]


def test_csv_has_bare_numbers_and_reads_back() -> None:
    head, first, second = csv.reader(io.StringIO(as_csv(TABLE)))
    assert head == ["name", "after", "after_low", "after_high", "tokens"]
    assert first == ["'" + NASTY.replace("\u2028", "⟨U+2028⟩"), "0.5", "0.4", "0.6", "12345.0"]  # no formula
    assert second == ["b", "0.25", "", "", ""]


def test_markdown_has_one_line_per_row_and_no_markup_of_others() -> None:
    lines = as_markdown(TABLE).splitlines()
    assert len(lines) == 6
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]] == [4, 4, 4, 4]
    assert lines[1] == "| --- | ---: | ---: |"
    assert "<" not in lines[2] and "&lt;script&gt;" in lines[2] and r"\[y\](z)" in lines[2]
    assert lines[3] == "| b | 25.0 |  |"
    assert lines[5] == r"100% of \*it\*"


def test_latex_has_every_special_sign_escaped() -> None:
    text = as_latex(TABLE)
    row = next(line for line in text.splitlines() if "script" in line)
    plain = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater)\{\}", "", row)
    plain = plain.replace(r"$\pm$", "").replace(r"$\langle$", "").replace(r"$\rangle$", "").removesuffix(r" \\")
    assert not re.search(r"(?<!\\)[%$#_{}~^]", plain)
    assert len(re.findall(r"(?<!\\)&", plain)) == 2
    assert r"50.0 $\pm$ 10.0 & 12.3k \\" in row
    assert r"100\% of *it*" in text


def test_a_cell_after_a_line_break_is_not_read_as_its_argument() -> None:
    assert "  {[}a] " in as_latex(Table("t", "", (Column("x", ""),), ({"x": "[a]"},)))


def test_all_formats_write_what_has_no_rows() -> None:
    assert all(form(Table("t", "none", TABLE.columns, ())) for form in FORMATS.values())
