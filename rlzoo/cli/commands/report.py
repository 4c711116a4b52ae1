"""Outputs from run folders: `rlzoo curves`, `rlzoo report`, `rlzoo power`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rlzoo.cli.console import complain, terminal
from rlzoo.cli.shell import command, starting


@command("curves runs/sort", "curves runs/sort runs/add --out both.pdf --tokens")
def curves(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs; also while they train.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Picture: .png (makes an .svg too), .svg or .pdf.",
            show_default="curves.png in the first folder",
        ),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Against sampled tokens instead of training steps.")] = False,
) -> None:
    """Draw the learning curves of any runs into one figure."""
    with starting():
        from rlzoo.report.outputs import draw_curves
        from rlzoo.store.run_folder import CURVES

    paths = draw_curves(folders, out or folders[0] / CURVES, "tokens_sampled" if tokens else "step")
    terminal().print(Text(f"drawn: {', '.join(map(str, paths))}"))


@command("report runs/sort", "report runs/sort --tables")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison, or of one run; also while it trains.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page.", show_default="report.html in the folder"),
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also the tables as Markdown, CSV and LaTeX, in tables/ beside it.")
    ] = False,
) -> None:
    """Make the report of a comparison: one HTML file with verdict, tables, curves, responses and settings."""
    with starting():
        from rlzoo.experiments.tasks import holds_tasks
        from rlzoo.report.read import read_study
        from rlzoo.report.tasks import write_report, write_tables

    path = write_report(folder, out)
    for reason in () if holds_tasks(folder) else read_study(folder, ()).left_out:
        complain(f"left out: {reason}", kind="warning")
    terminal().print(Text(f"report: {path}"), soft_wrap=True)
    if tables:
        paths = write_tables(folder, path.parent / "tables")
        terminal().print(Text(f"tables: {', '.join(map(str, paths))}"), soft_wrap=True)


@command("power runs/add")
def power(folder: Annotated[Path, typer.Argument(help="Folder of a comparison, such as a pilot of 4 seeds.")]) -> None:
    """Estimate from a finished comparison which differences more seeds and problems would detect."""
    with starting():
        from rich.table import Table

        from rlzoo.experiments.power import power_table

    made = power_table(folder)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("seeds", justify="right")
    rows = made["detectable"]
    for problems in next(iter(rows.values())):
        table.add_column(f"{problems:,} problems\npoints", justify="right")
    for seeds, found in rows.items():
        table.add_row(str(seeds), *(f"{100 * value:.1f}" for value in found.values()))
    terminal().print(table)
    shares = ", ".join(f"{100 * share:.0f}% from {name}" for name, share in (made["shares"] or {}).items())
    told = (
        f"The smallest true difference that is found with probability 0.8, for {made['questions']} questions together. "
        f"Of the squared error of this comparison: {shares}. Variances of few seeds are rough."
    )
    terminal().print(Text(told, style="dim"))
