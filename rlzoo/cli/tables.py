"""`rlzoo lab --table NAME`: the tables of the laboratory, with their arithmetic and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.errors import UserError, nearest
from rlzoo.lab.plots import FORMATS, draw
from rlzoo.lab.textbook import SHEETS, Sheet

LIST, ALL = "list", "all"


def find(name: str) -> None:
    """Refuse an unknown table.

    Raises:
        UserError: an unknown table.
    """
    if name not in (LIST, ALL, *SHEETS):
        raise UserError(f"unknown table {name!r}; {nearest(name, SHEETS)}; --table list shows all")


def table_command(name: str, out: Path | None) -> Sheet:
    """Compute a table, and draw its figure or write its page if asked.

    Raises:
        UserError: an unknown table, or an `out` that is neither a page nor a figure.
    """
    find(name)
    if out is not None and out.suffix not in (".md", *FORMATS):
        raise UserError(f"--out {out}: a table's page is a .md file, its figure .png, .svg or .pdf")
    with terminal(stderr=True).status(f"computing {name}"):
        sheet = SHEETS[name].compute()
    if out is not None and out.suffix == ".md":
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(markdown(name, sheet))
    elif out is not None:
        draw({SHEETS[name].title: sheet.plot}, out)
    return sheet


def show(name: str, objectives: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Print a table, or the list of them.

    Raises:
        UserError: an unknown table, objectives beside it, or an `out` that is neither a page nor a figure.
    """
    if objectives:
        raise UserError(f"--table {name} is computed without objectives: leave out {', '.join(objectives)}")
    if name == LIST:
        if as_json:
            print_json([{"name": e.name, "title": e.title, "source": e.source} for e in SHEETS.values()])
        else:
            terminal().print(names_table())
        return
    if name == ALL:
        write_all(out)
        terminal().print(f"Page: {out}")
        return
    sheet = table_command(name, out)
    if as_json:
        print_json({"name": name, "title": SHEETS[name].title, **sheet.as_dict()})
    else:
        terminal().print(sheet_table(name, sheet))


def write_all(out: Path | None) -> None:
    """Compute every table and write them to one page.

    Raises:
        UserError: an `out` that is no page.
    """
    if out is None or out.suffix != ".md":
        raise UserError("--table all writes every table to one page: add --out PAGE.md")
    pages: list[str] = []
    with terminal(stderr=True).status("computing") as status:
        for name, entry in SHEETS.items():
            status.update(f"computing {name}")
            pages.append(markdown(name, entry.compute()).replace("# ", "## ", 1))
    head = [
        "# Textbook tables",
        "",
        f"Made by `rlzoo lab --table all --out {out}`.",
        "`rlzoo lab --table NAME` prints one table with its arithmetic, `--out NAME.png` draws its figure. The worlds",
        "are small, the numbers float64 and exact, except where a line names runs or episodes: those are sampled.",
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([*head, "", "\n".join(pages)]))


def names_table() -> Table:
    """Return a line per table: its name, what it shows, the source."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("table", "what it shows", "source"):
        table.add_column(heading, overflow="fold")
    for entry in SHEETS.values():
        table.add_row(Text(entry.name, style="bold"), entry.title, Text(entry.source, style="dim"))
    return table


def sheet_table(name: str, sheet: Sheet) -> Group:
    """Return the table, its arithmetic and its reading."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, heading in enumerate(sheet.columns):
        table.add_column(heading, justify="left" if place == 0 else "right", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(Text(cell(x)) for x in row))
    lines = [Text(f"  {line}", style="dim") for line in sheet.arithmetic]
    entry = SHEETS[name]
    title = Text(entry.title, style="bold") + Text(f"  ({entry.source})", style="dim")
    return Group(title, table, Text(""), *lines, Text(""), Text(sheet.reading))


def cell(x: str | float | int) -> str:
    """Return a number with four significant digits; rounding errors become 0."""
    if isinstance(x, str | int):
        return str(x)
    return "0" if abs(x) < 1e-12 else f"{x:.4g}"


def markdown(name: str, sheet: Sheet) -> str:
    """Return the table as a page."""
    escaped = [[cell(x).replace("|", "\\|") for x in row] for row in (sheet.columns, *sheet.rows)]
    lines = [
        f"# {SHEETS[name].title}",
        "",
        f"Made by `rlzoo lab --table {name}`. Source: {SHEETS[name].source}.",
        "",
        "| " + " | ".join(escaped[0]) + " |",
        "|---" * len(sheet.columns) + "|",
        *("| " + " | ".join(row) + " |" for row in escaped[1:]),
        "",
        *(f"- {line}" for line in sheet.arithmetic),
        "",
        sheet.reading,
    ]
    return "\n".join(lines) + "\n"
