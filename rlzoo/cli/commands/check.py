"""The conformance suite for one objective: `rlzoo check`."""

from __future__ import annotations

from typing import Annotated

import typer

from rlzoo.cli.console import print_json, write_stdout
from rlzoo.cli.shell import FAILED, Json, command


@command("check my_objective --import mine.py", "check 'grpo[surrogate=bounded]' --import mine.py")
def check(
    name: Annotated[str, typer.Argument(help="An objective, or an ablation such as 'gspo\\[ratio=token]'.")],
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import your module or .py file first, which registers it.",
            show_default="none",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the conformance suite on an objective, yours too: micro-batches add up, masked tokens do not count, ..."""
    from rlzoo.cli.modules import import_module

    for module in modules or []:
        import_module(module)
    from objectives.conformance import CHECKS, failures
    from rlzoo.config.messages import find_objective

    objective = find_objective(name)
    found = failures(objective)
    if as_json:
        print_json({"name": objective.name, "checks": list(CHECKS), "failures": found})
    else:
        lines = [f"{'FAILED' if one in found else 'ok':>6}  {one.replace('_', ' ')}" for one in CHECKS]
        causes = [f"\n{one.replace('_', ' ')}: {found[one]}" for one in found]
        verdict = f"\n{objective.name}: {len(CHECKS) - len(found)} of {len(CHECKS)} checks passed."
        write_stdout("\n".join([*lines, *causes, verdict]) + "\n")
    if found:
        raise typer.Exit(FAILED)
