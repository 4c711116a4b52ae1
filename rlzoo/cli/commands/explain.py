"""Work, memory and effect of a configuration before it runs: `rlzoo explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.shell import BudgetOption, Json, Rate, Set, Steps, Task, command, starting, with_shortcuts


@command("explain benchmarks/recipes/demo.toml", "explain runs/sort/grpo/seed0/config.json --steps 200")
def explain(
    config: Annotated[Path, typer.Argument(help="Settings of a comparison or of one run: TOML, or a config.json.")],
    task: Task = None,
    assignments: Set = None,
    steps: Steps = None,
    lr: Rate = None,
    budget: BudgetOption = None,
    as_json: Json = False,
) -> None:
    """Show what a configuration will do before it runs: tokens, updates, memory, and settings without effect."""
    with starting():
        from rlzoo.config.comparison import CompareConfig
        from rlzoo.config.run import RunConfig
        from rlzoo.config.sources import read_file, settings
        from rlzoo.experiments import explain as explained

    model = RunConfig if "objective" in read_file(config) else CompareConfig
    over = with_shortcuts(assignments, budget=budget, lr=lr, steps=steps)
    chosen = settings(model, config, over, {"task": task})
    made = explained.explain(chosen)
    if as_json:
        print_json(made.as_dict())
    else:
        print_explanation(made)


def print_explanation(made: Any) -> None:
    """Print the work of a step and in all, the settings that depend on the model's size, memory, and notes."""
    console = terminal()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rounds = (
        f", and up to {made.rounds_at_most} times that where prompts are drawn again" if made.rounds_at_most > 1 else ""
    )
    each = (
        "a response to every held-out problem"
        if made.evaluation_responses is None
        else f"{made.evaluation_responses:,} responses"
    )
    known = ", ".join(f"{name} {value:g}" for name, value in made.memory.items())
    known = f"{known} GiB (estimates)" if known else ""
    ends = f", and {made.final_responses:,} before the first step and after the last" if made.final_responses else ""
    lines = {
        "runs": f"{made.runs}, of {made.steps} steps each",
        "a step": f"{made.prompts} prompts, {made.responses} responses{rounds}",
        "": f"at most {made.tokens_at_most:,} sampled tokens",
        "updates": f"{made.updates} per step, {made.updates_in_all:,} in all runs",
        "evaluations": f"{made.evaluations} per run, {each} each{ends}",
        "settings": ", ".join(f"{key} = {value}" for key, value in made.settings.items()),
        "model": "of unknown size"
        if made.parameters is None
        else f"about {made.parameters / 1e6:,.1f} million parameters",
        "memory": "; ".join(filter(None, [known, made.missing])),
    }
    for name, text in lines.items():
        table.add_row(name, Text(text))
    console.print(table)
    for note in made.notes:
        console.print(Text(f"! {note}", style="yellow"))
