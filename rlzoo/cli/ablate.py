"""Screen output of `rlzoo ablate`: the plan and the outcome as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlzoo.cli.plan import joint_moves
from rlzoo.cli.report import failures, plus_minus, points, unspent
from rlzoo.experiments.ablate import Ablation, Measured
from rlzoo.experiments.ablation_plan import Block, Plan
from rlzoo.stats.amounts import clock_time, short_count
from rlzoo.store.run_folder import REPORT

HEADINGS: dict[Block, tuple[str, str]] = {
    "ladder": ("ladder", "over the\nrow above"),
    "leave-one-out": ("leave-one-out", "against\nthe whole"),
    "sweep": ("sweep", "over the\nrow above"),
    "factorial": ("factorial", ""),
}


def print_ablation(console: Console, made: Plan, ablation: Ablation) -> None:
    """Print one table per block: each row's accuracy, and each contrast with its interval."""
    rows = {row.objective: row for row in ablation.comparison.rows}
    for block, lines in made.lines.items():
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        heading, difference = HEADINGS[block]
        table.add_column(heading, overflow="fold")
        for text in ("after\n%", f"{difference}\npoints" if difference else "", "sampled\ntokens"):
            table.add_column(text, justify="right", no_wrap=True)
        for line in lines:
            one, row = None if line.contrast is None else ablation.measured[line.contrast], rows[line.row]
            difference = points(one.difference if one else None)
            table.add_row(Text(line.label), plus_minus(row.after), difference, short_count(row.tokens_sampled))
        console.print(table)
        if block == "factorial":
            console.print(effects_table([one for one in ablation.measured if one.contrast.block == block]))
        console.print()
    for note in notes(ablation):
        console.print(Text(note, style="bold red" if note.startswith("FAILED") else "dim"))


def effects_table(measured: Sequence[Measured]) -> Table:
    """Return main effects and interactions of a factorial."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("\neffect", overflow="fold")
    table.add_column("\npoints", justify="right", no_wrap=True)
    for one in measured:
        table.add_row(Text(one.contrast.label), points(one.difference))
    return table


def notes(ablation: Ablation) -> list[str]:
    """Return the notes below the tables: how to read them, inconclusive contrasts, failures, the folder."""
    comparison = ablation.comparison
    seeds = max(row.seeds for row in comparison.rows)
    lines = [
        comparison.judgement.scope,
        f"Differences are paired by {seeds} seeds and the problems; intervals and verdicts allow for the number of "
        f"contrasts. Together the runs took {clock_time(comparison.elapsed_s)}.",
    ]
    for told in dict.fromkeys(one.told for one in ablation.measured):
        same = [one.contrast for one in ablation.measured if one.told == told]
        lines.append(f"{told.capitalize()}: {'; '.join(f'{one.label} ({one.block})' for one in same)}.")
    lines += [*joint_moves(one.contrast for one in ablation.measured), *unspent(comparison.summaries)]
    there = f"Report: {comparison.folder / REPORT}; runs are beside it"
    return [*lines, *failures(comparison.summaries), there]
