"""The command line: what to type, and what happens when something goes wrong.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 a run failed, 2 something in the input to
mend, 130 interrupted. Each command imports what it needs when it runs: help does not wait for torch.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer
from rich.text import Text

from rlzoo.cli.console import complain, finish, prepare, print_json, terminal, unable, write_stdout

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Threads that wait for each other shall sleep, not spin: on two cores that something else uses too, spinning made
# training ten times slower (111 s against 11 s). The OpenMP library reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

app = typer.Typer(
    name="rlzoo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings: a TOML file, or the config.json of a run folder.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="NAME=VALUE", help="One setting over the file's: train.steps=100. Repeatable."),
]
Task = Annotated[str | None, typer.Option("--task", "-t", help="Task, such as sort, add:hard, jsonl:PATH, hf:NAME.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the results; runs/TASK/... if not given.")]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", metavar="UNIT=N", help="What ends a run: tokens=200k, trained, updates, seconds."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds; start what it does not.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run the reward code that a run folder's settings name.")]

Function = TypeVar("Function", bound=Callable[..., Any])


def main() -> None:
    """Run the command line: the console script."""
    prepare()
    try:
        app()
    finally:
        finish()


def guarded(function: Function) -> Function:
    """Let UserErrors end in a message without a traceback, and Ctrl-C in one that says how to go on."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            from rlzoo.errors import UserError  # a ValueError; imported here, as it brings torch

            if not isinstance(error, UserError):
                raise
            complain(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except (OSError, MemoryError, RecursionError) as error:
            complain(unable(error))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt as interrupt:
            complain(str(interrupt) or "interrupted", kind="stopped")
            raise typer.Exit(INTERRUPTED) from None

    return cast("Function", run)


def command(function: Function) -> Function:
    """Register a command under its function's name."""
    app.command(name=function.__name__.removesuffix("_"))(guarded(function))
    return function


def with_budget(budget: str | None, assignments: list[str] | None) -> list[str]:
    """Put the option --budget before what --set gave."""
    return [*([] if budget is None else [f"train.budget={json.dumps(budget)}"]), *(assignments or [])]


def with_search(tune: str | None, seeds: int | None) -> list[str]:
    """The options --tune and --tune-seeds as --set would give them."""
    made = [] if seeds is None else [f"tune.seeds={seeds}"]
    if tune is not None:
        setting, _, values = (part.strip() for part in tune.partition("="))
        if not values:
            from rlzoo.errors import UserError

            raise UserError(f"--tune {tune!r} names no values to choose from: --tune lr=3e-4,7e-4,2e-3")
        made += [f"tune.setting={json.dumps(setting)}", f"tune.values=[{values}]"]
    return made


@contextmanager
def starting() -> Iterator[None]:
    """Show, in a terminal, that something goes on: importing the libraries takes some seconds."""
    with terminal(stderr=True).status("starting"):
        yield


@app.callback()
@guarded
def common(
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="Import your module or .py file first: it may register more."),
    ] = None,
) -> None:
    """Policy-gradient objectives for language models, side by side on one shared 4-bit LoRA backbone."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(
            here
        )  # reward = "my_rewards:graded" is a file beside the user; last, so that it hides no library
    if modules:
        from rlzoo.cli.settings import import_module

        for name in modules:
            import_module(name)


@command
def list_(
    what: Annotated[Literal["objectives", "parts", "tasks", "settings"], typer.Argument(help="What to list.")] = (
        "objectives"
    ),
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the objectives as they stand in the README.")
    ] = False,
) -> None:
    """Show what there is: objectives (a row of parts each), parts, tasks, or the settings that --set takes."""
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


@command
def show(
    name: Annotated[str, typer.Argument(help="An objective, or an ablation such as 'gspo\\[ratio=token]'.")],
    as_json: Json = False,
) -> None:
    """Show one objective: its equation, its paper, and every setting."""
    from rlzoo.cli import zoo

    objective = zoo.find(name)
    if as_json:
        print_json(zoo.described(objective))
    else:
        zoo.print_page(terminal(), objective)


@command
def train(
    objective: Annotated[
        str | None, typer.Argument(help="An objective, or an ablation of one; see rlzoo list.")
    ] = None,
    task: Task = None,
    seed: Annotated[int | None, typer.Option(help="Seed of prompts, noise and first adapter.")] = None,
    config: Config = None,
    assignments: Set = None,
    budget: BudgetOption = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train one objective with one seed."""
    assignments = with_budget(budget, assignments)
    with starting():
        from rlzoo.cli import report, run
        from rlzoo.config.run import RunConfig

    given = {"objective": objective, "task": task, "seed": seed}
    summary = run.train_command(run.settings(RunConfig, config, assignments or [], given, trust), out, resume)
    if as_json:
        print_json(summary)
    else:
        console = terminal()
        console.print(report.run_table([summary]))
        notes = [*report.unspent([summary]), *report.failures([summary])]
        there = f"{'Run and curves' if summary['step'] else 'Run'}: {summary['folder']}"  # no step, no curves
        run.print_notes(console, [*notes, there])
    if summary["state"] == "failed":
        raise typer.Exit(FAILED)


@command
def compare(
    objectives: Annotated[
        list[str] | None, typer.Argument(help="Objectives or ablations; all: every one that learns from rewards alone.")
    ] = None,
    task: Task = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds per objective.")] = None,
    config: Config = None,
    assignments: Set = None,
    budget: BudgetOption = None,
    tune: Annotated[
        str | None,
        typer.Option(metavar="NAME=A,B,...", help="First choose a value for each on other seeds: lr=3e-4,7e-4,2e-3."),
    ] = None,
    tune_seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of that search.")] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option(
            "--control", help="The first objective again: same (on other seeds), random_reward or frozen. Repeatable."
        ),
    ] = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Train objectives side by side, each with several seeds, and compare them."""
    assignments = [*with_search(tune, tune_seeds), *with_budget(budget, assignments)]
    with starting():
        from rlzoo.cli import report, run
        from rlzoo.config.comparison import CompareConfig

    given = {"objectives": objectives or None, "task": task, "seeds": seeds, "controls": controls or None}
    chosen = run.settings(CompareConfig, config, assignments or [], given, trust)
    comparison = run.compare_command(chosen, out, resume)
    if as_json:
        print_json({"folder": str(comparison.folder), **comparison.as_dict()})
    else:
        console = terminal()
        console.print(report.comparison_table(comparison, console.width))
        run.print_verdicts(console, report.verdicts(comparison))
        run.print_notes(console, report.comparison_notes(comparison))
    if report.failures(comparison.summaries):
        raise typer.Exit(FAILED)


@command
def ablate(
    name: Annotated[str, typer.Argument(help="An objective.")],
    to: Annotated[str | None, typer.Option(help="The other end; the objective that its paper set out from.")] = None,
    only: Annotated[
        Literal["ladder", "leave-one-out"] | None, typer.Option(help="One of the two; both if not given.")
    ] = None,
    factorial: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="All cells in these columns instead: select,shape,aggregate.")
    ] = None,
    task: Task = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds per row.")] = None,
    config: Config = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=VALUE", help="A setting; or a sweep: surrogate.high=0.2,0.24,0.28."),
    ] = None,
    budget: BudgetOption = None,
    out: Out = None,
    resume: Resume = False,
    trust: Trust = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rows, train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Take an objective back to its parent one column at a time, and measure what each is worth."""
    with starting():
        from rlzoo.cli import ablate, report

        sweeps, rest = ablate.split_sweeps(with_budget(budget, assignments))
        made = ablate.plan_of(name, to, only, sweeps, factorial)
        chosen = ablate.comparison_of(made, config, rest, {"task": task, "seeds": seeds}, trust)
    console = terminal()
    if dry_run:
        if as_json:
            print_json(made.as_dict())
        else:
            ablate.print_plan(console, made, chosen)
        return
    ablation = ablate.run_plan(name, made, chosen, out, resume)
    if as_json:
        print_json(ablation.as_dict())
    else:
        ablate.print_ablation(console, made, ablation)
    if report.failures(ablation.comparison.summaries):
        raise typer.Exit(FAILED)


@command
def evaluate(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders of runs; none: the base model.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Evaluate the base model as well.")] = False,
    task: Task = None,
    prompts: Annotated[int | None, typer.Option(min=1, help="Held-out problems.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Responses per problem; 8 give pass@2, 4 and 8.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The most likely response instead of samples.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings for the base model, a TOML file.")
    ] = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure trained runs, or the base model, on held-out problems."""
    with starting():
        from rlzoo.cli import report, run
        from rlzoo.errors import UserError

    if runs and config:
        raise UserError("run folders bring their own settings: leave out --config, or change single ones with --set")
    results = run.evaluate_command(
        runs or [],
        base,
        config,
        task=task,
        prompts=prompts,
        samples=samples,
        greedy=greedy,
        assignments=assignments or [],
        trust=trust,
    )
    if as_json:
        print_json(results)
    else:
        terminal().print(report.evaluation_table(results))


@command
def curves(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs; also while they train.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File: .png (makes an .svg too), .svg or .pdf.")],
    tokens: Annotated[bool, typer.Option("--tokens", help="Against sampled tokens instead of training steps.")] = False,
) -> None:
    """Draw the learning curves of any runs into one figure."""
    with starting():
        from rlzoo.report.outputs import draw_curves

    paths = draw_curves(folders, out, "tokens_sampled" if tokens else "step")
    terminal().print(Text(f"drawn: {', '.join(map(str, paths))}"))


@command
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a comparison, or of one run; also while it trains.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File; report.html in the folder if not given.")
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also the tables as Markdown, CSV and LaTeX, in tables/ beside it.")
    ] = False,
) -> None:
    """Make the report of a comparison: one HTML file with verdict, tables, curves, responses and settings."""
    with starting():
        from rlzoo.report import write_report, write_tables

    path = write_report(folder, out)
    terminal().print(Text(f"report: {path}"), soft_wrap=True)
    if tables:
        paths = write_tables(folder, path.parent / "tables")
        terminal().print(Text(f"tables: {', '.join(map(str, paths))}"), soft_wrap=True)


@command
def warmstart(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings, a TOML file.")] = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Train a small base model from scratch on demonstrations of the procedural tasks."""
    with starting():
        from rlzoo.cli import run

    summary = run.warmstart_command(out, config, assignments or [])
    if as_json:
        print_json(summary)
    else:
        terminal().print(Text(f"The model is in {out}. Try it: rlzoo evaluate --set backbone.model={out}"))


@command
def lab(
    objectives: Annotated[
        list[str] | None, typer.Argument(help="Objectives or ablations; all of rlzoo list if not given.")
    ] = None,
    group_size: Annotated[int, typer.Option("--group-size", "-g", min=1, help="Responses per prompt.")] = 8,
    longest: Annotated[int, typer.Option(min=1, help="Longest response, tokens.")] = 4,
    success: Annotated[float, typer.Option(help="How often the base is right, between 0 and 1.")] = 0.25,
    updates: Annotated[int, typer.Option(min=1, help="Updates per rollout; clips begin to act at the second.")] = 4,
    policy: Annotated[Literal["tabular", "transformer"], typer.Option(help="The small policy.")] = "tabular",
    critic: Annotated[Literal["exact", "noisy", "zero"], typer.Option(help="Values that a critic is given.")] = "exact",
    step: Annotated[float, typer.Option(min=0, help="How far each update moves the parameters.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Seed of the base, and of sampling where sums are too long.")] = 0,
    groups: Annotated[int, typer.Option(min=40, help="Groups sampled where sums are too long.")] = 2000,
    budget: Annotated[float, typer.Option(min=1, help="Sampled tokens that the error is given for.")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Figure: sweep the settings and draw.")] = None,
    as_json: Json = False,
) -> None:
    """Measure what objectives' gradients estimate, exactly: direction, bias, variance in an enumerated world."""
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


@command
def values(
    objectives: Annotated[
        list[str] | None, typer.Argument(help="Objectives or ablations; the first of each family if not given.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Sampled responses per learner and seed.")] = 4096,
    longest: Annotated[int, typer.Option(min=1, help="Longest response, tokens.")] = 4,
    judge: Annotated[float, typer.Option(help="Standard deviation of the judge's error on a reward of 0 or 1.")] = 1.0,
    epsilon: Annotated[float, typer.Option(help="How often value-based learners sample a uniform token.")] = 1.0,
    group_size: Annotated[int, typer.Option("--group-size", "-g", min=1, help="Responses per rollout.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 16,
    seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Page: a .md file; its figure goes beside it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set Q-learning and DQN beside the objectives, all measured against the exact optimum of an enumerated world."""
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


@command
def claims(
    names: Annotated[list[str] | None, typer.Argument(help="Claims by name; all if not given.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Page (.md), or figure of named claims.")] = None,
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
