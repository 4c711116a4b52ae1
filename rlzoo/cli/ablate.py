"""The command `rlzoo ablate`: a plan out of its arguments, and its outcome as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import objectives
from objectives import Objective
from rlzoo.api.reported import ablate
from rlzoo.cli.report import failures, plus_minus, points, unspent
from rlzoo.cli.run import default_folder, settings, watched
from rlzoo.cli.zoo import find
from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.experiments.ablate import Ablation, Block, Contrast, Measured, Plan, plan
from rlzoo.report.progress import clock_time, short_count
from rlzoo.store.run_folder import REPORT

HEADINGS: dict[Block, tuple[str, str]] = {
    "ladder": ("ladder", "over the\nrow above"),
    "leave-one-out": ("leave-one-out", "against\nthe whole"),
    "sweep": ("sweep", "over the\nrow above"),
    "factorial": ("factorial", ""),
}


def split_sweeps(assignments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Tell the sweeps among --set (a column or a part's field, and several values) from settings.

    Raises:
        UserError: a column with one value, or with an empty one.
    """
    sweeps: dict[str, list[str]] = {}
    rest: list[str] = []
    for text in assignments:
        key, _, values = (part.strip() for part in text.partition("="))
        if key.partition(".")[0] not in Objective.columns:
            rest.append(text)
            continue
        values = values.removeprefix("[").removesuffix("]")
        sweeps[key] = [value.strip().strip("\"'") for value in values.split(",")]
        if len(sweeps[key]) < 2 or not all(sweeps[key]):
            raise UserError(
                f"--set {text!r} names a column of the objective: list two or more values to sweep, "
                f"--set {key}=A,B; to change it in all rows, ablate 'NAME[{key}={values}]'"
            )
    return sweeps, rest


def plan_of(name: str, to: str | None, only: Block | None, sweeps: dict[str, list[str]], factorial: str | None) -> Plan:
    """Lay out what the arguments of `rlzoo ablate` ask for: ladder and leave-one-out, unless they ask for less or else.

    Raises:
        UserError: an unknown name, no parent to go back to, or options that do not go together; see `ablate.plan`.
    """
    objective = find(name)
    blocks: list[Block] = [only] if only else ["ladder", "leave-one-out"]
    if sweeps or factorial is not None:
        if only:
            raise UserError(f"--only {only} chooses among ladder and leave-one-out; a sweep or a factorial is neither")
        chosen: list[tuple[Block, bool]] = [("sweep", bool(sweeps)), ("factorial", factorial is not None)]
        blocks = [block for block, asked in chosen if asked]
    parent = None
    if blocks != ["sweep"]:
        to = to or objectives.parent(name)
        if to is None:
            raise UserError(f"{name} does not say what it set out from: name the other end with --to")
        parent = find(to)
    elif to is not None:
        raise UserError("--to is the other end of a ladder; a sweep has none")
    factors = [[column.strip() for column in one.split("+")] for one in (factorial or "").split(",")]
    return plan(objective, parent, blocks=blocks, sweeps=sweeps, factors=factors)


def comparison_of(
    made: Plan, config: Path | None, assignments: Sequence[str], given: dict[str, object], trust: bool = False
) -> CompareConfig:
    """Return the comparison that a plan's rows are, with settings as `rlzoo compare` takes them."""
    given = given | {"objectives": [row.name for row in made.rows]}
    return settings(CompareConfig, config, assignments, given, trust)


def run_plan(name: str, made: Plan, config: CompareConfig, out: Path | None, resume: bool) -> Ablation:
    """Run a plan with the live table; into runs/TASK-ablate-NAME if no folder is named."""
    folder = out or default_folder(f"{config.task.name}-ablate-{name}")
    return ablate(made, config, folder, resume=resume, watch=partial(watched, folder=folder))


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
    """Return what a reader should know: how to read it, what these seeds could not tell, what failed, where it is."""
    comparison = ablation.comparison
    seeds = max(row.seeds for row in comparison.rows)
    lines = [
        f"Final held-out accuracy over {seeds} seeds with 95% t intervals; differences are paired by seed. Together "
        f"the runs took {clock_time(comparison.elapsed_s)}."
    ]
    unresolved = [one.contrast for one in ablation.measured if not one.resolved]
    if unresolved:
        told = "; ".join(f"{contrast.label} ({contrast.block})" for contrast in unresolved)
        lines.append(f"Inconclusive: {told}.")
    lines += [*joint_moves(one.contrast for one in ablation.measured), *unspent(comparison.summaries)]
    there = f"Report: {comparison.folder / REPORT}; curves and runs are beside it"
    return [*lines, *failures(comparison.summaries), there]


def joint_moves(contrasts: Iterable[Contrast]) -> list[str]:
    """Return why columns change together, once for those that do so from both ends."""
    notes = [contrast.note for contrast in contrasts if contrast.note]
    return list({note.partition(":")[0]: note for note in reversed(notes)}.values())[::-1]
