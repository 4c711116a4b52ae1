"""Training a base model: `rlzoo warmstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.shell import Json, Set, command, starting


@command("warmstart --out my_base", "warmstart --out small --set layers=2 --set steps=1000")
def warmstart(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the model.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Settings, a TOML file.",
            show_default="those of rlzoo list settings",
        ),
    ] = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Train a small base model from scratch on demonstrations of the procedural tasks."""
    with starting():
        from rlzoo.config.sources import settings
        from rlzoo.config.warmstart import WarmstartConfig

    chosen = settings(WarmstartConfig, config, assignments or [], {})
    with starting():
        from rlzoo.cli.live import step_bar
        from rlzoo.warmstart.train import warmstart as make

    measuring = f"sampling {chosen.evaluate_prompts} problems of {len(chosen.tasks)} tasks for its card"
    with step_bar("warm start", chosen.steps, measuring if chosen.evaluate_prompts else "writing it") as on_step:
        summary = make(chosen, out, on_step)
    if as_json:
        print_json(summary)
    else:
        terminal().print(Text(f"The model is in {out}. Try it: rlzoo evaluate --set backbone.model={out}"))
