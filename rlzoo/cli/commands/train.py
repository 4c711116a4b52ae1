"""Training and evaluation: `rlzoo train`, `compare`, `ablate`, `evaluate`."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from rlzoo.cli.console import print_json, terminal
from rlzoo.cli.shell import (
    FAILED,
    BudgetOption,
    Config,
    EngineName,
    Json,
    Out,
    Rate,
    Resume,
    Set,
    Steps,
    Task,
    Tasks,
    Trust,
    command,
    starting,
    with_search,
    with_shortcuts,
)


@command("train grpo", "train dapo --task add:hard --steps 100 --lr 7e-4", "train -c runs/sort/grpo/seed0/config.json")
def train(
    objective: Annotated[
        str | None,
        typer.Argument(help="An objective, or an ablation of one; see rlzoo list.", show_default="the file's"),
    ] = None,
    task: Task = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of prompts, noise and first adapter.", show_default="0")
    ] = None,
    config: Config = None,
    assignments: Set = None,
    steps: Steps = None,
    lr: Rate = None,
    budget: BudgetOption = None,
    engine: EngineName = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train one objective with one seed."""
    with starting():
        from rlzoo.config.run import RunConfig
        from rlzoo.config.sources import settings

    given = {"objective": objective, "task": task, "seed": seed}
    chosen = settings(
        RunConfig, config, with_shortcuts(assignments, budget=budget, engine=engine, lr=lr, steps=steps), given, trust
    )
    with starting():
        from rlzoo.api import reported
        from rlzoo.cli import live, report
        from rlzoo.experiments.folders import default_folder

    folder = out or default_folder(chosen.task.name) / chosen.name
    summary = reported.train(chosen, folder, resume=resume, watch=partial(live.watched, folder=folder))
    summary = {"folder": str(folder), **summary}
    if as_json:
        print_json(summary)
    else:
        console = terminal()
        console.print(report.run_table([summary]))
        notes = [*report.unspent([summary]), *report.failures([summary])]
        folder = summary["folder"]
        live.print_notes(console, [*notes, f"Run: {folder}", f"Its page: {shlex.join(['rlzoo', 'report', folder])}"])
    if summary["state"] == "failed":
        raise typer.Exit(FAILED)


@command(
    "compare grpo gspo dapo --seeds 8",
    "compare grpo gspo --task add:medium,sort:hard",
    "compare all --task add:hard --budget tokens=200k --tune lr=7e-4,2e-3",
)
def compare(
    objectives: Annotated[
        list[str] | None,
        typer.Argument(
            help="Objectives or ablations; all: every one that learns from rewards alone.", show_default="the file's"
        ),
    ] = None,
    task: Tasks = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of seeds per objective.", show_default="4")
    ] = None,
    config: Config = None,
    assignments: Set = None,
    steps: Steps = None,
    lr: Rate = None,
    budget: BudgetOption = None,
    engine: EngineName = None,
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=A,B,...",
            help="First choose a value for each on other seeds: lr=3e-4,7e-4,2e-3.",
            show_default="no search",
        ),
    ] = None,
    tune_seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Seeds of that search.", show_default="2")
    ] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option(
            "--control",
            metavar="NAME",
            help="The first objective again: same (on other seeds), random_reward or frozen. Repeatable.",
            show_default="none",
        ),
    ] = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train objectives side by side, each with several seeds, and compare them."""
    assignments = [
        *with_search(tune, tune_seeds),
        *with_shortcuts(assignments, budget=budget, engine=engine, lr=lr, steps=steps),
    ]
    with starting():
        from rlzoo.config.comparison import CompareConfig
        from rlzoo.config.sources import settings
        from rlzoo.config.task import split_tasks

    named = {"objectives": objectives or None, "task": task and split_tasks(task)}
    given = {**named, "seeds": seeds, "controls": controls or None}
    chosen = settings(CompareConfig, config, assignments, given, trust)
    with starting():
        from rlzoo.api import reported
        from rlzoo.cli import live, report, tasks
        from rlzoo.experiments.folders import comparison_folder

    folder = out or comparison_folder(chosen)
    if chosen.tasks:
        if tasks.compare_tasks(chosen, folder, resume, as_json):
            raise typer.Exit(FAILED)
        return
    comparison = reported.compare(chosen, folder, resume=resume, watch=partial(live.watched, folder=folder))
    if as_json:
        print_json({"folder": str(comparison.folder), **comparison.as_dict()})
    else:
        console = terminal()
        console.print(report.comparison_table(comparison, console.width))
        live.print_verdicts(console, report.verdicts(comparison))
        live.print_notes(console, report.comparison_notes(comparison))
    if report.failures(comparison.summaries):
        raise typer.Exit(FAILED)


@command("ablate dapo", "ablate dapo --only ladder --dry-run", "ablate gspo --set surrogate.high=3e-4,4e-4,8e-4")
def ablate(
    name: Annotated[str, typer.Argument(help="An objective.")],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The other end, such as grpo.",
            show_default="the objective that its paper set out from",
        ),
    ] = None,
    only: Annotated[
        Literal["ladder", "leave-one-out"] | None, typer.Option(help="One of the two.", show_default="both")
    ] = None,
    factorial: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS", help="All cells in these columns instead: select,shape,aggregate.", show_default="none"
        ),
    ] = None,
    task: Task = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of seeds per row.", show_default="4")
    ] = None,
    config: Config = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="NAME=VALUE",
            help="A setting; or a sweep: surrogate.high=0.2,0.24,0.28. Repeatable.",
            show_default="none",
        ),
    ] = None,
    steps: Steps = None,
    lr: Rate = None,
    budget: BudgetOption = None,
    engine: EngineName = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rows, train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Change an objective back to its parent one column at a time, and measure the effect of each column."""
    with starting():
        from rlzoo.config.comparison import CompareConfig
        from rlzoo.config.sources import settings, split_sweeps
        from rlzoo.experiments.ablation_plan import plan_of

    sweeps, rest = split_sweeps(with_shortcuts(assignments, budget=budget, engine=engine, lr=lr, steps=steps))
    factors = [[column.strip() for column in one.split("+")] for one in (factorial or "").split(",")]
    made = plan_of(name, to, only=only, sweeps=sweeps, factors=factors if factorial is not None else None)
    given = {"task": task, "seeds": seeds, "objectives": [row.name for row in made.rows]}
    chosen = settings(CompareConfig, config, rest, given, trust)
    console = terminal()
    if dry_run:
        from rlzoo.cli.plan import print_plan

        if as_json:
            print_json(made.as_dict())
        else:
            print_plan(console, made, chosen)
        return
    with starting():
        from rlzoo.api import reported
        from rlzoo.cli import ablate, live, report
        from rlzoo.experiments.folders import default_folder

    folder = out or default_folder(f"{chosen.task.name}-ablate-{name}")
    ablation = reported.ablate(made, chosen, folder, resume=resume, watch=partial(live.watched, folder=folder))
    if as_json:
        print_json(ablation.as_dict())
    else:
        ablate.print_ablation(console, made, ablation)
    if report.failures(ablation.comparison.summaries):
        raise typer.Exit(FAILED)


@command("evaluate runs/sort --base --samples 8", "evaluate --task add:hard --prompts 500")
def evaluate(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders, or folders of runs.", show_default="none: the base model"),
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Evaluate the base model as well.")] = False,
    task: Task = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Held-out problems.", show_default="as at the end of the run"),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Responses per problem; 8 give pass@2, 4 and 8.",
            show_default="as at the end of the run",
        ),
    ] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The most likely response instead of samples.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Settings for the base model, a TOML file.",
            show_default="those of rlzoo list settings",
        ),
    ] = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure trained runs, or the base model, on held-out problems."""
    with starting():
        from rlzoo.errors import UserError
        from rlzoo.experiments.evaluation_jobs import evaluation_jobs

    if runs and config:
        raise UserError("run folders bring their own settings: leave out --config, or change single ones with --set")
    jobs = evaluation_jobs(
        runs or [],
        base=base,
        file=config,
        task=task,
        prompts=prompts,
        samples=samples,
        greedy=greedy,
        assignments=assignments or [],
        trust=trust,
    )
    with terminal(stderr=True).status("loading the base model") as status:
        from rlzoo.cli import report
        from rlzoo.experiments.evaluate import evaluate_jobs

        results = evaluate_jobs(
            jobs, on_job=lambda job: status.update(Text(f"evaluating {job.policy} on {job.config.task.name}"))
        )
    if as_json:
        print_json(results)
    else:
        terminal().print(report.evaluation_table(results))
