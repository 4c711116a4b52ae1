"""Shared by all commands: the application, common options, exit codes, and error handling.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted.
Each command imports its modules when it runs, so help does not wait for torch.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer
from typer.core import TyperCommand, TyperGroup

from rlzoo.cli.console import complain, terminal, unable

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# Threads that wait for each other shall sleep, not spin: on two cores that something else uses too, spinning made
# training ten times slower (111 s against 11 s). The OpenMP library reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class _Untyped:
    """Help that shows no type for a switch: it takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_Untyped, TyperCommand):
    """A command of this application."""


class Group(_Untyped, TyperGroup):
    """All commands."""


app = typer.Typer(
    name="rlzoo",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Settings: a TOML file, or the config.json of a run folder.",
        show_default="those of rlzoo list settings",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="NAME=VALUE",
        help="One setting over the file's: train.steps=100. Repeatable.",
        show_default="none",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task", "-t", metavar="TASK", help="Task, such as add:hard, jsonl:PATH or hf:NAME.", show_default="sort"
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--task",
        "-t",
        metavar="TASK",
        help="Task, such as add:hard, jsonl:PATH or hf:NAME; several: add:medium,sort:hard.",
        show_default="sort",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.", show_default="one below runs"),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="UNIT=N",
        help="What ends a run: tokens=200k, trained=100k, updates=500 or seconds=600.",
        show_default="none: all steps",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="X",
        help="Learning rate, such as 1e-5; by default less for a model larger than the shipped one.",
        show_default="0.0007",
    ),
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Where to train: local, ray, ray://HOST:PORT, or tinker (with --set engine.url=URL).",
        show_default="local",
    ),
]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, metavar="N", help="Training steps: rollouts.", show_default="60")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the runs in the folder; start the missing ones.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run the reward code that a run folder's settings name.")]

Function = TypeVar("Function", bound=Callable[..., Any])


def guarded(function: Function) -> Function:
    """Print UserErrors as a message without a traceback, and on Ctrl-C how to continue."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if isinstance(value, float) and not math.isfinite(value):
                complain(f"--{name.replace('_', '-')} must be a finite number, got {value}")
                raise typer.Exit(BAD_INPUT)
        try:
            return function(*args, **kwargs)
        except ArithmeticError as error:  # an option so large or small that its powers are no numbers
            complain(f"the options lead beyond what floating-point numbers hold ({error}): choose less extreme ones")
            raise typer.Exit(BAD_INPUT) from None
        except ValueError as error:
            from rlzoo.errors import UserError  # a ValueError; imported here, as it brings torch

            if not isinstance(error, UserError):
                raise
            complain(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except (OSError, MemoryError, RecursionError) as error:
            complain(unable(error))
            raise typer.Exit(FAILED) from None
        except RuntimeError as error:  # torch's way to say that memory is exhausted
            if not re.search(r"allocate memory|out of memory", str(error)):
                raise
            complain(unable(MemoryError()))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt as interrupt:
            complain(str(interrupt) or "interrupted", kind="stopped")
            raise typer.Exit(INTERRUPTED) from None

    return cast("Function", run)


def command(*examples: str) -> Callable[[Function], Function]:
    """Register a command under its function's name, with examples below its help."""
    shown = "\n\n".join(f"  $ rlzoo {example}".replace("[", "\\[") for example in examples)

    def register(function: Function) -> Function:
        epilog = f"[bold]Examples[/bold]\n\n{shown}" if examples else None
        app.command(name=function.__name__.removesuffix("_"), epilog=epilog, cls=Command)(guarded(function))
        return function

    return register


def with_shortcuts(
    assignments: list[str] | None,
    *,
    budget: str | None = None,
    engine: str | None = None,
    lr: float | None = None,
    steps: int | None = None,
) -> list[str]:
    """Put the options --budget, --engine, --lr and --steps before what --set gave."""
    texts = {
        "engine.name": engine and json.dumps(engine),
        "train.budget": budget and json.dumps(budget),
        "optimizer.lr": lr,
        "train.steps": steps,
    }
    return [*(f"{name}={text}" for name, text in texts.items() if text is not None), *(assignments or [])]


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
