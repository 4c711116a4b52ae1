"""Accuracy before and after training on the shipped tasks: five algorithms, paired seeds, one schedule for all.

python -m benchmarks.tasks --out runs/tasks --write benchmarks/results/tasks.md
"""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rlzoo.api.reported import compare
from rlzoo.cli.live import watched
from rlzoo.cli.report import comparison_table
from rlzoo.cli.shell import guarded
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.sources import settings
from rlzoo.experiments.compare import Comparison
from rlzoo.model.backbone import Backbone
from rlzoo.report.progress import clock_time, short_count
from rlzoo.stats.intervals import Interval
from rlzoo.store.provenance import environment
from rlzoo.tasks import load_task

RECIPE = Path("benchmarks/recipes/tasks.toml")
TASKS = ("sort:medium", "add:medium", "parity:medium", "countdown:medium", "needle:medium")


def percent(value: Interval | None) -> str:
    """Return an interval of accuracies in percent."""
    if value is None:
        return "-"
    half = "" if value.half_width is None else f" ± {100 * value.half_width:.1f}"
    return f"{100 * value.mean:.1f}{half}"


def markdown(results: dict[str, Comparison], config: CompareConfig, command: str) -> str:
    """Return the page: a table per task, with command, commit and hardware."""
    env = environment()
    lines = [
        "# Before and after on the shipped tasks",
        "",
        f"Held-out accuracy in percent, mean ± 95% t interval over {len(config.seeds)} seeds; gains are paired.",
        f"{config.train.steps} steps of {config.train.prompts_per_step} x {config.train.group_size} samples, "
        f"{config.train.updates_per_rollout} updates per rollout, lr {config.optimizer.lr:g}, "
        f"{config.evaluation.prompts} held-out prompts; the same for all. Tokens are those sampled per run, including "
        "those of discarded prompts.",
        "",
        f"- command: `{command}`",
        f"- commit: {env['commit']}, {env['started'][:10]}",
        f"- hardware: {env['cpu']}, {env['cores']} cores; torch {env['torch']}, NF4 backbone",
    ]
    for name, result in results.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| | before | after | gain | length | sampled tokens | engine time |",
            "|---" * 7 + "|",
        ]
        for row in result.rows:
            length = f"{row.length_before or 0:.1f} → {row.length_after or 0:.1f}"
            cost = f"{short_count(row.tokens_sampled)} | {clock_time(row.engine_s)}"
            failed = f" ({row.failed} failed)" if row.failed else ""
            before = "-" if row.before is None else f"{100 * row.before.mean:.1f}"  # the same for all seeds
            cells = f"{before} | {percent(row.after)} | {percent(row.gain)} | {length} | {cost}"
            lines.append(f"| {row.objective}{failed} | {cells} |")
    return "\n".join(lines) + "\n"


def command(config: Path, tasks: str, assignments: list[str]) -> str:
    """Return the command line that reproduces these results."""
    words = ["--config", str(config)] if config != RECIPE else []
    words += ["--tasks", tasks] if tasks != ",".join(TASKS) else []
    words += [word for assignment in assignments for word in ("--set", assignment)]
    return shlex.join(["python", "-m", "benchmarks.tasks", *words])


@guarded
def main(
    config: Annotated[Path, typer.Option("--config", "-c")] = RECIPE,
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("runs/tasks"),
    write: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = ",".join(TASKS),
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C")] = None,
    resume: bool = False,
) -> None:
    """Run the same comparison on every task and write one table each."""
    console = Console()
    results: dict[str, Comparison] = {}
    configs = {name: settings(CompareConfig, config, assignments or [], {"task": name}) for name in tasks.split(",")}
    for chosen in configs.values():
        load_task(chosen.task)  # an unknown task fails here, before hours of training
    first = next(iter(configs.values()))
    backbone = Backbone.load(first.backbone)
    for name, chosen in configs.items():
        folder = out / name.replace(":", "-")
        watch = partial(watched, folder=folder)
        results[name] = compare(chosen, folder, resume=resume, watch=watch, backbone=backbone)
        console.print(name, comparison_table(results[name], console.width))
    text = markdown(results, first, command(config, tasks, assignments or []))
    if write:
        write.write_text(text)


if __name__ == "__main__":
    typer.run(main)
