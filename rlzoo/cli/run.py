"""What the commands that need a model do: settings in, progress while they work, a table or JSON out."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from rlzoo.api.reported import compare, train
from rlzoo.cli.console import terminal
from rlzoo.cli.settings import override, read_file
from rlzoo.config.budget import Budget
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import Model, validate
from rlzoo.config.run import RunConfig, SharedConfig
from rlzoo.config.trust import refuse_code
from rlzoo.experiments.compare import Comparison
from rlzoo.experiments.folders import run_folders
from rlzoo.model.backbone import Backbone
from rlzoo.report.progress import Progress, RunProgress
from rlzoo.store.run_folder import ADAPTER, CONFIG
from rlzoo.tasks import load_task
from rlzoo.training.evaluate import evaluate_policy

err = terminal(stderr=True)


def settings(
    model: type[Model], file: Path | None, assignments: Sequence[str], given: dict[str, Any], trust: bool = False
) -> Model:
    """Return the settings of a command: the file's, under what options gave, under --set.

    Args:
        trust: whether code may run that a run folder's file names (a JSON file; a TOML file was written by its user).

    Raises:
        UserError: see `rlzoo.cli.settings` and `rlzoo.config.trust`.
    """
    table = read_file(file) if file else {}
    table |= {key: value for key, value in given.items() if value is not None}
    if isinstance(table.get("task"), str):
        table["task"] = {"name": table["task"]}  # so that --set task.reward=... goes together with --task sort
    typed = [key for key, value in given.items() if value is not None]
    source = " with ".join(
        filter(None, [str(file or ""), "the command line's settings" if typed or assignments or not file else ""])
    )
    made = validate(model, override(table, assignments), source)
    if file is not None and file.suffix == ".json" and not trust:
        refuse_code(made, file, [*typed, *(text.partition("=")[0].strip() for text in assignments)])
    return made


def train_command(config: RunConfig, out: Path | None, resume: bool) -> dict[str, Any]:
    """Train one run and return its summary."""
    folder = out or default_folder(config.task.name) / config.name
    summary = train(config, folder, resume=resume, watch=partial(watched, folder=folder))
    return {"folder": str(folder), **summary}


def compare_command(config: CompareConfig, out: Path | None, resume: bool) -> Comparison:
    """Train every objective with every seed and return the comparison."""
    folder = out or default_folder(config.task.name)
    return compare(config, folder, resume=resume, watch=partial(watched, folder=folder))


def evaluate_command(folders: Sequence[Path], with_base: bool, file: Path | None, **given: Any) -> list[dict[str, Any]]:
    """Evaluate the adapters of runs in and below folders, each with its run's settings and what was given over them.

    Without a folder, or `with_base`, the base model itself is evaluated.
    """
    jobs: list[tuple[str, Path | None, SharedConfig]] = []
    for folder in run_folders(folders):
        jobs.append((str(folder), folder / ADAPTER, evaluation_settings(RunConfig, folder / CONFIG, **given)))
    if not jobs or with_base:
        base = jobs[0][2] if jobs else evaluation_settings(SharedConfig, file, **given)
        jobs.insert(0, ("base", None, base))
    results = []
    loaded: dict[Any, Backbone] = {}
    with err.status("loading the base model") as status:
        for policy, adapter, config in jobs:
            if config.backbone not in loaded:
                loaded = {config.backbone: Backbone.load(config.backbone)}
            status.update(Text(f"evaluating {policy} on {config.task.name}"))
            results.append(evaluated(loaded[config.backbone], policy, adapter, config))
    return results


def evaluated(backbone: Backbone, policy: str, adapter: Path | None, config: SharedConfig) -> dict[str, Any]:
    """Evaluate the base model, or an adapter on it, and return the outcome as JSON types."""
    evaluation = evaluate_policy(
        backbone,
        load_task(config.task),
        backbone.load_adapter(adapter).to(backbone.device) if adapter else None,
        config.evaluation,
        batching=config.engine,
        max_new_tokens=config.train.max_new_tokens,
        temperature=config.train.temperature,
    )
    return {
        "policy": policy,
        "task": config.task.name,
        "prompts": len(evaluation.rollout.problems),
        "samples": config.evaluation.samples,
        "greedy": config.evaluation.greedy,
        "metrics": evaluation.metrics,
    }


def evaluation_settings(
    model: type[Model],
    file: Path | None,
    *,
    task: str | None,
    prompts: int | None,
    samples: int | None,
    greedy: bool,
    assignments: Sequence[str],
    trust: bool = False,
) -> Model:
    """Return the settings in a file with the options of `rlzoo evaluate` over them."""
    options = {"prompts": prompts, "samples": 1 if greedy and samples is None else samples, "greedy": greedy or None}
    texts = [f"evaluation.{key}={str(value).lower()}" for key, value in options.items() if value is not None]
    return settings(model, file, [*texts, *assignments], {"task": task}, trust)


def warmstart_command(out: Path, file: Path | None, assignments: Sequence[str]) -> dict[str, Any]:
    """Train a base model from scratch into a folder and return its summary."""
    from rlzoo.config.warmstart import WarmstartConfig
    from rlzoo.warmstart.train import warmstart

    config = settings(WarmstartConfig, file, assignments, {})
    measuring = f"sampling {config.evaluate_prompts} problems of {len(config.tasks)} tasks for its card"
    with step_bar("warm start", config.steps, measuring if config.evaluate_prompts else "writing it") as on_step:
        return warmstart(config, out, on_step)


@contextmanager
def watched(configs: Mapping[str, RunConfig], folder: Path) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Show the live table while runs train; on Ctrl-C say what is safe and how to go on."""
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


def default_folder(task: str) -> Path:
    """Return where runs on a task go when nobody says: runs/TASK, with what no file name should have taken out."""
    return Path("runs") / re.sub(r"[^\w.+-]+", "-", task).strip("-")


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
