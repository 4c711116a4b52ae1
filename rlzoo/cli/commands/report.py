"""What is made of run folders: `rlzoo curves`, `rlzoo report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rlzoo.cli.console import complain, terminal
from rlzoo.cli.shell import command, starting


@command("curves runs/sort --out sort.png", "curves runs/sort runs/add --out both.pdf --tokens")
def curves(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs; also while they train.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File: .png (makes an .svg too), .svg or .pdf.")],
    tokens: Annotated[bool, typer.Option("--tokens", help="Against sampled tokens instead of training steps.")] = False,
) -> None:
    """Draw the learning curves of any runs into one figure."""
    with starting():
        from rlzoo.report.outputs import draw_curves

    paths = draw_curves(folders, out, "tokens_sampled" if tokens else "step")
    terminal().print(Text(f"drawn: {', '.join(map(str, paths))}"))


@command("report runs/sort", "report runs/sort --tables")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison, or of one run; also while it trains.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File; report.html in the folder if not given.")
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also the tables as Markdown, CSV and LaTeX, in tables/ beside it.")
    ] = False,
) -> None:
    """Make the report of a comparison: one HTML file with verdict, tables, curves, responses and settings."""
    with starting():
        from rlzoo.report.page import write_report, write_tables
        from rlzoo.report.read import read_study

    path = write_report(folder, out)
    for reason in read_study(folder, ()).left_out:
        complain(f"left out: {reason}", kind="warning")
    terminal().print(Text(f"report: {path}"), soft_wrap=True)
    if tables:
        paths = write_tables(folder, path.parent / "tables")
        terminal().print(Text(f"tables: {', '.join(map(str, paths))}"), soft_wrap=True)
