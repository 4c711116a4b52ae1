"""The command line, put together: the options before a command, and every group of commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from rlzoo.cli import commands
from rlzoo.cli.console import finish, prepare, write_stdout
from rlzoo.cli.shell import app, guarded

__all__ = ["app", "commands", "main"]


def main() -> None:
    """Run the command line: the console script."""
    prepare()
    try:
        app()
    finally:
        finish()


def print_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        import rlzoo

        write_stdout(f"{rlzoo.__version__}\n")
        raise typer.Exit


@app.callback()
@guarded
def common(
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import your module or .py file first: it may register more.",
            show_default="none",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Policy-gradient objectives for language models, side by side on one shared 4-bit LoRA backbone."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(
            here
        )  # reward = "my_rewards:graded" is a file beside the user; last, so that it hides no library
    if modules:
        from rlzoo.cli.modules import import_module

        for name in modules:
            import_module(name)
