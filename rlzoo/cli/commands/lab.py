"""The exact laboratory: `rlzoo lab`, `values`, `claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.shell import Json, command, starting


@command("lab grpo dapo gspo", "lab --group-size 16 --out lab.png", "lab --table bellman")
def lab(
    objectives: Annotated[
        list[str] | None, typer.Argument(help="Objectives or ablations.", show_default="all of rlzoo list")
    ] = None,
    # At 1,024 an objective takes 15 s of CPU, and time grows in proportion: a longer wait is a typing mistake.
    group_size: Annotated[
        int, typer.Option("--group-size", "-g", min=1, max=1024, metavar="N", help="Responses per prompt.")
    ] = 8,
    longest: Annotated[int, typer.Option(min=1, metavar="N", help="Longest response, tokens.")] = 4,
    success: Annotated[float, typer.Option(metavar="X", help="How often the base is right, between 0 and 1.")] = 0.25,
    updates: Annotated[
        int, typer.Option(min=1, metavar="N", help="Updates per rollout; clips begin to act at the second.")
    ] = 4,
    policy: Annotated[Literal["tabular", "transformer"], typer.Option(help="The small policy.")] = "tabular",
    critic: Annotated[Literal["exact", "noisy", "zero"], typer.Option(help="Values that a critic is given.")] = "exact",
    step: Annotated[float, typer.Option(min=0, metavar="X", help="Size of each update in parameter space.")] = 0.3,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of the base, and of sampling where sums are too long.")
    ] = 0,
    groups: Annotated[int, typer.Option(min=40, metavar="N", help="Groups sampled where sums are too long.")] = 2000,
    budget: Annotated[
        float, typer.Option(min=1, metavar="X", help="Sampled tokens that the error is given for.")
    ] = 1000,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="NAME",
            help="A textbook table instead, such as bellman; list shows all.",
            show_default="none",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Sweep the settings and draw a .png, .svg or .pdf; with --table its figure or .md page.",
            show_default="none",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compute objectives' expected gradients exactly in an enumerated world: direction, bias, variance."""
    if table is not None:
        with starting():
            from rlzoo.cli import tables

        tables.show(table, objectives or [], out, as_json)
        return
    with starting():
        from rlzoo.cli import lab
        from rlzoo.lab.measure import Setting

    centre = Setting(group_size, longest, success, updates, policy=policy, critic=critic, step=step, seed=seed)
    rows = lab.lab_command(objectives or [], centre, groups, budget, out)
    if as_json:
        print_json([row.as_dict() | {"error": row.error(budget)} for row in rows])
        return
    console = terminal()
    console.print(lab.lab_table(rows, centre, budget, console.width))
    for note in lab.lab_notes(rows, centre, out):
        console.print(Text(note, style="dim"))


@command("values", "values grpo ppo --episodes 1024 --out values.md")
def values(
    objectives: Annotated[
        list[str] | None, typer.Argument(help="Objectives or ablations.", show_default="the first of each family")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, metavar="N", help="Sampled responses per learner and seed.")] = 4096,
    longest: Annotated[int, typer.Option(min=1, metavar="N", help="Longest response, tokens.")] = 4,
    judge: Annotated[
        float, typer.Option(metavar="X", help="Standard deviation of the judge's error on a reward of 0 or 1.")
    ] = 1.0,
    epsilon: Annotated[
        float, typer.Option(metavar="X", help="How often value-based learners sample a uniform token.")
    ] = 1.0,
    group_size: Annotated[
        int, typer.Option("--group-size", "-g", min=1, metavar="N", help="Responses per rollout.")
    ] = 16,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Number of seeds.")] = 16,
    seed: Annotated[int, typer.Option(metavar="N", help="The first of them.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Page: a .md file; its figure goes beside it.", show_default="none"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare Q-learning, DQN and the objectives with the exact optimum of an enumerated world."""
    with starting():
        from rlzoo.cli import values
        from rlzoo.lab.families import ValueSetting

    setting = ValueSetting(
        episodes, longest, judge=judge, epsilon=epsilon, group_size=group_size, seeds=seeds, seed=seed
    )
    rows = values.values_command(objectives or [], setting, out)
    if as_json:
        print_json([row.as_dict() for row in rows])
        return
    console = terminal()
    console.print(values.values_table(rows, setting, console.width))
    for note in [*values.values_notes(setting), *([f"Page: {out}"] if out else [])]:
        console.print(Text(note, style="dim"))


@command("claims", "claims --out claims.md")
def claims(
    names: Annotated[list[str] | None, typer.Argument(help="Claims by name.", show_default="all")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Page (.md), or figure of named claims.", show_default="none"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check statements about the algorithms: supported, refuted, depends, or inconclusive. Named ones in full."""
    with starting():
        from rlzoo.cli import claims

    results = claims.claims_command(names or [], out)
    if as_json:
        print_json([result.as_dict() for result in results])
    else:
        claims.show(results, in_full=bool(names))
