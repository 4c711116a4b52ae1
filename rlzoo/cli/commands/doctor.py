"""Integrity of run folders and symptoms of training runs: `rlzoo doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.shell import FAILED, Json, command, starting


@command("doctor runs/sort", "doctor runs/sort/grpo/seed0 --json", "doctor trainer_state.json")
def doctor(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, folders of runs, or another trainer's log: trainer_state.json of TRL, .jsonl, .csv."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Verify the files of run folders, and diagnose training runs, ours or another trainer's, in plain words."""
    with starting():
        from rlzoo.experiments.doctor import examine

    found = examine(paths)
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        console = terminal()
        for one in found:
            sick = bool(one.damage or one.symptoms)
            console.print(Text(str(one.path), style="bold red" if sick else "bold green"), soft_wrap=True)
            for kind, lines in (("damaged", one.damage), ("symptom", one.symptoms), ("note", one.notes)):
                for line in lines:
                    console.print(Text(f"  {kind}: {line}"), soft_wrap=True)
            if not (one.damage or one.symptoms):
                console.print(Text("  nothing wrong was found", style="dim"))
    if any(one.damage for one in found):
        raise typer.Exit(FAILED)
