"""Lists and pages: `rlzoo list`, `rlzoo show`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rlzoo.cli.console import print_json, terminal, write_stdout
from rlzoo.cli.shell import Json, command


@command("list", "list settings", "list parts --json")
def list_(
    what: Annotated[Literal["objectives", "parts", "tasks", "settings"], typer.Argument(help="What to list.")] = (
        "objectives"
    ),
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the objectives as they stand in the README.")
    ] = False,
) -> None:
    """List objectives (a row of parts each), parts, tasks, or the settings that --set takes."""
    from rlzoo.cli import names, zoo
    from rlzoo.errors import UserError

    if as_markdown and what != "objectives":
        raise UserError(f"--markdown is for the table of objectives; for {what} there is --json")
    if what != "objectives":
        if as_json:
            print_json(getattr(names, what)())
        else:
            names.print_names(terminal(), what)
    elif as_json:
        print_json(zoo.rows())
    elif as_markdown:
        write_stdout(zoo.markdown())
    else:
        zoo.print_list(terminal())


@command("show gspo", "show 'gspo[ratio=token]'")
def show(
    name: Annotated[str, typer.Argument(help="An objective, or an ablation such as 'gspo\\[ratio=token]'.")],
    as_json: Json = False,
) -> None:
    """Show one objective: its equation, its paper, and every setting."""
    from rlzoo.cli import zoo
    from rlzoo.config.messages import find_objective

    objective = find_objective(name)
    if as_json:
        print_json(zoo.described(objective))
    else:
        zoo.print_page(terminal(), objective)
