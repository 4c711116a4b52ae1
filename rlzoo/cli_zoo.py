"""The zoo on the screen: `rlzoo list` (one row per algorithm, one column per part) and `rlzoo show NAME` (its page)."""

from __future__ import annotations

import re
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import objectives
from objectives import Objective
from rlzoo.cli_names import note, toml
from rlzoo.cli_settings import readable
from rlzoo.errors import UserError
from rlzoo.palette import ink

LABEL = re.compile(r"[A-Z][a-z ]+: ")


def rows() -> list[dict[str, str]]:
    """Return one table row per registered objective, name and every column, in order of registration."""
    return [{"name": name, **objectives.get(name).row()} for name in objectives.names()]


def shown_columns(table: list[dict[str, str]]) -> list[str]:
    """Return the columns in which some row has something."""
    return [column for column in Objective.columns if any(row[column] for row in table)]


def markdown() -> str:
    """Return the table of all objectives in Markdown, as it stands in the README."""
    table = rows()
    columns = shown_columns(table)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join([row["name"], *(row[column] for column in columns)]) + " |" for row in table]
    return "\n".join(lines) + "\n"


def print_list(console: Console) -> None:
    """Print the table: as in the README where the terminal is wide enough, else with algorithms as columns."""
    table = rows()
    columns = shown_columns(table)
    widths = [max(len(column), *(len(row[column]) for row in table)) for column in ["name", *columns]]
    if sum(widths) + 3 * len(widths) <= console.width:
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column("")
        for column in columns:
            grid.add_column(column)
        for position, row in enumerate(table):
            grid.add_row(Text(row["name"], style=ink(position)), *(Text(row[column]) for column in columns))
    else:
        grid = Table(box=None, pad_edge=False)
        grid.add_column("", style="dim")
        for position, row in enumerate(table):
            grid.add_column(Text(row["name"], style=ink(position)), overflow="fold")
        for column in columns:
            # A part's settings stand on a line of their own, where they need the least room.
            grid.add_row(column, *(Text(row[column].replace("(", "\n(")) for row in table))
    console.print(grid)
    console.print()
    note(console, "rlzoo show NAME prints an algorithm's equation, paper and constants;")
    note(console, "rlzoo list parts, tasks or settings what else can be named.")


def find(name: str) -> Objective:
    """Return an objective by name, or an ablation of one. Raises UserError with the nearest name."""
    try:
        return objectives.get(name)
    except ValueError as error:
        raise UserError(readable(error)) from error


def page(objective: Objective) -> str:
    """Return the page of an objective; an ablation has that of what it was made from."""
    return objectives.page(objective.name.partition("[")[0])


def described(objective: Objective) -> dict[str, Any]:
    """Return everything about an objective as JSON types."""
    return {
        "name": objective.name,
        "page": page(objective),
        "needs": sorted(objective.needs),
        "row": objective.row(),
        "settings": objective.model_dump(mode="json"),
    }


def print_page(console: Console, objective: Objective) -> None:
    """Print the page, then every setting with its value, under the name that --set and TOML know it by."""
    title, _, rest = page(objective).partition("\n")
    if "[" in objective.name:
        console.print(Text(objective.name, style="bold"))
    console.print(Text(title, style="bold"))
    for paragraph in paragraphs(rest):
        console.print(Text(paragraph), soft_wrap=paragraph.startswith(" "))
    console.print()
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("column", "part", "settings"):
        grid.add_column(heading)
    for column in Objective.columns:
        cell = getattr(objective, column)
        parts = cell if isinstance(cell, tuple) else (cell,)
        for part in parts or (None,):
            if part is None:
                grid.add_row(column, Text("none", style="dim"), "")
                continue
            fields = {name: value for name, value in part.spec().items() if name != "kind"}
            settings = ", ".join(f"{name} = {toml(value)}" for name, value in fields.items())
            grid.add_row(column, part.kind, Text(settings))
    console.print(grid)
    needs = ", ".join(sorted(objective.needs)) or "nothing beyond log-probs"
    console.print(Text(f"The trainer supplies: {needs}"))


def paragraphs(text: str) -> list[str]:
    """Return text with each paragraph on one line, to be wrapped anew; an indented line (an equation) stays as it is.

    A paragraph ends at an empty line, at an equation, and before a line that begins with a label (`Constants: `).
    """
    result: list[str] = []
    for line in text.split("\n"):
        previous = result[-1] if result else ""
        if previous and line and not (line.startswith(" ") or previous.startswith(" ") or LABEL.match(line)):
            result[-1] = f"{previous} {line}"
        else:
            result.append(line)
    return result
