"""`rlzoo ablate --dry-run` on the screen: a plan that is not run, so nothing that trains is imported."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlzoo.config.comparison import CompareConfig
from rlzoo.experiments.ablation_plan import Contrast, Plan


def print_plan(console: Console, made: Plan, config: CompareConfig) -> None:
    """Print the rows of a plan that is not run."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("what changes", overflow="fold")
    table.add_column("objective", overflow="fold")
    for block, lines in made.lines.items():
        table.add_row(Text(block, style="bold"), "")
        for line in lines:
            table.add_row(Text(line.label), Text(line.row))
    console.print(table)
    runs = len(made.rows) * len(config.seeds)
    size = f"{len(made.rows)} rows times {len(config.seeds)} seeds: {runs} runs of {config.train.steps} steps."
    for note in [size, *joint_moves(made.contrasts)]:
        console.print(Text(note, style="dim"))


def joint_moves(contrasts: Iterable[Contrast]) -> list[str]:
    """Return why columns change together, once for those that do so from both ends."""
    notes = [contrast.note for contrast in contrasts if contrast.note]
    return list({note.partition(":")[0]: note for note in reversed(notes)}.values())[::-1]
