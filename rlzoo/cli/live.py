"""Terminal output while a command runs, and below its table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from rlzoo.cli.console import terminal
from rlzoo.config.budget import Budget
from rlzoo.config.run import RunConfig
from rlzoo.report.progress import Progress, RunProgress

err = terminal(stderr=True)


@contextmanager
def watched(configs: Mapping[str, RunConfig], folder: Path) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Show the live table while runs train; on Ctrl-C print what is safe and how to continue."""
    runs = [
        RunProgress(name, c.row, c.seed, c.train.steps, c.evaluation.every, Budget.of(c.train.budget))
        for name, c in configs.items()
    ]
    try:
        with Progress(runs, err) as progress:
            yield progress.on_event
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"everything up to the last checkpoint is safe in {folder}. Continue with:\n  {resume_command()}"
        ) from None


@contextmanager
def step_bar(label: str, steps: int, afterwards: str) -> Iterator[Callable[[int, float], None]]:
    """Show one bar for a loop that reports its step and loss, and after its last step what goes on then."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    bar = Bar(*columns, TimeRemainingColumn(), console=err)
    task = bar.add_task(label, total=steps, loss=float("nan"))

    def on_step(step: int, loss: float) -> None:
        bar.start()  # not before: settings that cannot be used end in a message alone
        bar.update(task, completed=step + 1, loss=loss)
        if step + 1 == steps:
            bar.update(task, description=f"{label} done, {afterwards}")

    try:
        yield on_step
    finally:
        bar.stop()


def resume_command() -> str:
    """Return the command line that continues this one."""
    program, *arguments = sys.argv
    start = ["python", "-m", "rlzoo"] if program.endswith("__main__.py") else [program]
    return shlex.join([*start, *arguments, *([] if "--resume" in arguments else ["--resume"])])


def print_verdicts(console: Console, sentences: Sequence[str]) -> None:
    """Print what a comparison found, below its table; the first sentence stands out."""
    console.print()
    for position, sentence in enumerate(sentences):
        console.print(Text(sentence, style="" if position else "bold"))


def print_notes(console: Console, notes: Sequence[str]) -> None:
    """Print lines below a table; those of failures stand out."""
    console.print()
    for note in notes:
        console.print(Text(note, style="bold red" if note.startswith("FAILED") else "dim"))
