"""Published results run again: `rlzoo reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.shell import FAILED, Json, Out, Resume, command, starting


@command("reproduce --list", "reproduce parity-grpo-25", "reproduce verl-grpo-lora-gsm8k-1.5b --data gsm8k --steps 10")
def reproduce(
    name: Annotated[str | None, typer.Argument(help="A published row.", show_default="with --list: all")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show all rows with what they cost.")] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after this many steps.", show_default="the row's")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Data that the row asks for, such as gsm8k.", show_default="none"),
    ] = None,
    out: Out = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Rerun a published result with its own settings and report whether ours is inside its tolerance."""
    from rlzoo.errors import UserError

    if (name is None) != show:
        raise UserError("name one published row, or list them: rlzoo reproduce --list")
    with starting():
        from rlzoo.cli.live import step_bar, watched
        from rlzoo.experiments import reproduce as published
        from rlzoo.report.reproduction import draw
    if name is None:
        rows = published.rows()
        if as_json:
            print_json({key: row.model_dump(mode="json") for key, row in rows.items()})
        else:
            terminal().print(list_table(rows))
        return
    row, folder = published.find(name), out or Path("runs") / "reproduce" / name
    base = row.base()
    if base is not None:
        with step_bar("base model", base.steps, "writing it") as on_step:
            config = published.prepare(name, row, folder, steps=steps, data=data, on_base=on_step)
    else:
        config = published.prepare(name, row, folder, steps=steps, data=data)
    with watched({config.name: config}, folder) as on_record:
        made = published.reproduce(name, folder, steps=steps, data=data, resume=resume, on_record=on_record)
    draw(made, folder / "curves.png")
    if as_json:
        print_json(made.as_dict())
    else:
        print_outcome(made)
    if any(point.outcome == "outside" for point in made.points):
        raise typer.Exit(FAILED)


def list_table(rows: dict[str, Any]) -> Table:
    """Return one line per published row: what it is, what it needs, what it costs."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("row", "needs", "costs", "published"):
        table.add_column(heading, overflow="fold")
    for name, row in rows.items():
        needs = row.device + (", data" if row.data else "")
        table.add_row(Text(name), Text(needs), Text(row.cost), Text(row.title))
    return table


def print_outcome(made: Any) -> None:
    """Print the reference points beside ours, why the tolerances are what they are, and what is known to differ."""
    console = terminal()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("step", "metric", "published", "ours", ""):
        table.add_column(heading, justify="left" if heading in ("metric", "") else "right")
    styles = {"inside": "green", "outside": "bold red", "not reached": "dim"}
    for point in made.points:
        one = point.reference
        found = "-" if point.found is None else f"{point.found:.4g}"
        table.add_row(
            str(one.step), Text(one.label), one.wanted, found, Text(point.outcome, style=styles[point.outcome])
        )
    console.print(table)
    console.print()
    others = [metric for metric in made.curves if metric.startswith("accuracy_") and made.curves[metric]]
    for metric in others:
        step, value = made.curves[metric][-1]
        console.print(Text(f"{metric} at step {step}: {value:.4g}", style="dim"))
    for note in [f"Tolerance: {made.row.tolerance}", *(f"Differs: {one}" for one in made.row.differs)]:
        console.print(Text(note, style="dim"))
    console.print(Text(f"Curve and records: {made.folder}", style="dim"))
