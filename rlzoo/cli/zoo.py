"""Screen output of `rlzoo list` (an algorithm is a row of parts) and `rlzoo show NAME` (its page).

An algorithm whose paper started from another one is listed under its family with only its changed cells; the others are
listed with every cell. This keeps the list short.
"""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import objectives
from objectives import Objective
from rlzoo.cli.names import note, toml
from rlzoo.report.palette import looks
from rlzoo.report.text import paragraphs


def rows() -> list[dict[str, Any]]:
    """Return one table row per registered objective: name, family, parent, and every column; family by family."""
    return [
        {"name": name, "family": family, "parent": objectives.parent(name), **objectives.get(name).row()}
        for family, members in objectives.families().items()
        for name in members
    ]


def roots() -> list[str]:
    """Return the objectives without a parent, family by family: their rows are listed in full."""
    return [row["name"] for row in rows() if row["parent"] is None]


def heirs() -> dict[str, dict[str, dict[str, str]]]:
    """Return family -> name -> what the objective changes from its parent, for all that have one."""
    result: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows():
        if row["parent"] is not None:
            changes = objectives.get(row["name"]).changes_from(objectives.get(row["parent"]))
            result.setdefault(row["family"], {})[row["name"]] = changes
    return result


def in_words(changes: dict[str, str]) -> str:
    """Return changed cells on one line, each a word to wrap around: `surrogate=clip(0.2,0.28), kl=none`."""
    return ", ".join(f"{column}={cell.replace(' ', '')}" for column, cell in changes.items()) or "nothing"


def full_table() -> tuple[list[str], list[list[str]]]:
    """Return the columns in which some root has something, and the roots' rows, name first."""
    table = {name: objectives.get(name).row() for name in roots()}
    columns = [column for column in Objective.columns if any(row[column] for row in table.values())]
    return columns, [[name, *(row[column] for column in columns)] for name, row in table.items()]


def markdown() -> str:
    """Return the tables of all objectives in Markdown, as they stand in the README."""
    columns, table = full_table()
    lines = [_markdown_row(["", *columns]), "|---" * (len(columns) + 1) + "|", *map(_markdown_row, table)]
    if heirs():
        lines += ["", _markdown_row(["", "sets out from", "and changes"]), "|---|---|---|"]
    for family, members in heirs().items():
        lines.append(_markdown_row([f"**{family}**", "", ""]))
        for name, changes in members.items():
            lines.append(_markdown_row([name, objectives.parent(name) or "", in_words(changes)]))
    return "\n".join(lines) + "\n"


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def print_list(console: Console) -> None:
    """Print the roots in full, then every family's other members as what they change."""
    style = {name: look.ink for name, look in looks(objectives.names()).items()}
    console.print(_full_grid(console.width, style))
    console.print()
    wide = max((len(name) for members in heirs().values() for name in members), default=0)
    for family, members in heirs().items():
        # A table of its own, so that a family's name takes no room from what its members change.
        console.print(Text(family, style="bold"))
        grid = Table(box=None, pad_edge=False, show_header=False)
        grid.add_column(no_wrap=True, min_width=wide + 2)
        grid.add_column(overflow="fold")
        for name, changes in members.items():
            changed = Text(f"{objectives.parent(name)} + {in_words(changes)}")
            grid.add_row(Text(f"  {name}", style=style[name]), changed)
        console.print(grid)
        console.print()
    note(console, "rlzoo show NAME prints an algorithm's equation, paper and constants;")
    note(console, "rlzoo list parts, tasks or settings what else can be named.")


def _full_grid(width: int, style: dict[str, str]) -> Table:
    """The roots' rows: as in the README where there is room for it, else with algorithms as columns."""
    columns, table = full_table()
    widths = [max(map(len, cells)) for cells in zip(["", *columns], *table, strict=True)]
    if sum(widths) + 3 * len(widths) <= width:
        grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in ("", *columns):
            grid.add_column(column)
        for name, *cells in table:
            grid.add_row(Text(name, style=style[name]), *map(Text, cells))
        return grid
    grid = Table(box=None, pad_edge=False)
    grid.add_column("", style="dim")
    for name, *_ in table:
        grid.add_column(Text(name, style=style[name]), overflow="fold")
    for column, *cells in zip(["", *columns], *table, strict=True):
        if column:
            # A part's settings stand on a line of their own, where they need the least room.
            grid.add_row(column, *(Text(cell.replace("(", "\n(")) for cell in cells))
    return grid


def page(objective: Objective) -> str:
    """Return the page of an objective; an ablation has that of what it was made from."""
    return objectives.page(objective.name.partition("[")[0])


def origin(objective: Objective) -> str | None:
    """Return the name of what an objective was made from: an ablation's base, else the registered parent, if any."""
    base, bracket, _ = objective.name.partition("[")
    return base if bracket else objectives.parent(base)


def changes(objective: Objective) -> dict[str, str]:
    """Return column -> cell for the cells in which an objective differs from what it was made from."""
    parent = origin(objective)
    return {} if parent is None else objective.changes_from(objectives.get(parent))


def described(objective: Objective) -> dict[str, Any]:
    """Return everything about an objective as JSON types."""
    return {
        "name": objective.name,
        "page": page(objective),
        "parent": origin(objective),
        "changes": changes(objective),
        "needs": sorted(objective.needs),
        "row": objective.row(),
        "settings": objective.model_dump(mode="json"),
    }


def print_page(console: Console, objective: Objective) -> None:
    """Print the page, then what differs from what it was made from, then every setting under the name --set takes."""
    title, _, rest = page(objective).partition("\n")
    if "[" in objective.name:
        console.print(Text(objective.name, style="bold"))
    console.print(Text(title, style="bold"))
    for paragraph in paragraphs(rest):
        console.print(Text(paragraph), soft_wrap=paragraph.startswith(" "))
    console.print()
    parent = origin(objective)
    if parent is not None:
        theirs = objectives.get(parent).row()
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("what changes", parent, objective.name):
            grid.add_column(Text(heading), overflow="fold")
        for column, cell in changes(objective).items():
            grid.add_row(column, Text(theirs[column] or "none"), Text(cell))
        console.print(grid)
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
