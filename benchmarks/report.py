"""Time, memory and file size of a report, for synthetic runs of any length.

python -m benchmarks.report --write benchmarks/results/report.md
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console

import objectives
from rlzoo.cli.shell import guarded
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.store.provenance import environment
from rlzoo.store.run_folder import REPORT
from rlzoo.training.run import TIMES

COSTS = ("updates", "prompts_sampled", "prompts_discarded", "tokens_sampled", "tokens_discarded", "tokens_trained")


@dataclass(frozen=True)
class Measured:
    """Cost of one report, including the start of Python."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    file_mb: float
    runs_mb: float


def invent(folder: Path, config: RunConfig, strength: float) -> None:
    """Write the folder of a synthetic run: accuracy rises to `strength`, with noise from its seed."""
    rng = np.random.default_rng([config.seed, int(1e6 * strength)])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.stored()))
    (folder / "environment.json").write_text(json.dumps(environment()))
    steps, reach = config.train.steps, strength + rng.normal(0, 0.02)
    records, samples = [], []

    def costs(step: int) -> dict[str, float]:
        return {**dict.fromkeys(COSTS, 1300 * step), "updates": 4 * step, **dict.fromkeys(TIMES, 0.3 * step)}

    def measured(step: int) -> dict[str, float]:
        accuracy = 0.3 + (reach - 0.3) * (1 - np.exp(-4 * step / steps)) + rng.normal(0, 0.01)
        length = 14 + 8 * step / steps
        return {
            **{"reward": accuracy, "accuracy": accuracy, "length": length, "length_right": length + 2},
            **{"length_wrong": length - 2, "finished": 1.0, "silent_groups": accuracy / 2},
            "entropy": 0.5 * float(np.exp(-3 * step / steps)),
        }

    for step in range(steps + 1):
        if step % config.evaluation.every == 0:
            records.append({"kind": "eval", "step": step, **measured(step), **costs(step)})
            samples += [
                {"kind": "eval", "step": step, "prompt": f"{i}+{i}=", "completion": f"{i}" * 12, "answer": str(2 * i)}
                | {"reward": 0.0, "accuracy": 0.0, "length": 12, "finished": True}
                for i in range(config.train.samples)
            ]
        if step:
            noisy = {key: float(abs(rng.normal())) for key in (*objectives.UPDATE_KEYS, "gradient_norm", "sampler_gap")}
            records.append({"kind": "train", "step": step, **noisy, **measured(step), "rounds": 1, **costs(step)})
            samples += [{**samples[-1], "kind": "train", "step": step}] * config.train.samples
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    summary = {"name": config.name, "objective": config.objective.name, "seed": config.seed, "state": "done"}
    (folder / "summary.json").write_text(json.dumps({**summary, "failure": None, "step": steps, **costs(steps)}))


def fitting(steps: int) -> list[RunConfig]:
    """Return a run of each objective that accepts the default schedule."""
    configs = []
    for name in objectives.names():
        table = {"objective": name, "train": {"steps": steps}, "task": {"name": "add:medium"}}
        with suppress(ValidationError):
            configs.append(RunConfig.model_validate(table))
    return configs


def measure(folder: Path) -> Measured:
    """Make the report in a separate process, with `rlzoo report`.

    Raises:
        UserError: the process failed.
    """
    started = time.monotonic()
    words = [sys.executable, "-m", "rlzoo", "report", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    status, used = os.wait4(process.pid, 0)[1:]  # resource usage of this process only
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{shlex.join(words)} ended with exit code {process.returncode}")
    return Measured(
        seconds=time.monotonic() - started,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_mib=used.ru_maxrss / 1024,
        file_mb=(folder / REPORT).stat().st_size / 1e6,
        runs_mb=sum(path.stat().st_size for path in folder.rglob("*.json*")) / 1e6,
    )


def markdown(found: dict[str, Measured], command: str) -> str:
    """Return the page: the table, with command, commit and hardware."""
    env = environment()
    lines = [
        "# Cost of a report",
        "",
        "`rlzoo report` on synthetic runs (noise around a rising curve), in a separate process. Time and memory "
        "include the start of Python and the imports. Other work on the machine lengthens the time, not the CPU time.",
        "",
        f"- command: `{command}`",
        f"- commit: {env['commit']}, {env['started'][:10]}",
        f"- hardware: {env['cpu']}, {env['cores']} cores",
        "",
        "| algorithms x seeds x steps | run folders | time | CPU time | peak memory | report |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {one.runs_mb:.0f} MB | {one.seconds:.1f} s | {one.cpu_seconds:.1f} s | {one.peak_mib:.0f} MiB "
        f"| {one.file_mb:.2f} MB |"
        for name, one in found.items()
    ]
    return "\n".join(lines) + "\n"


@guarded
def main(
    sizes: Annotated[str, typer.Option(help="Algorithms x seeds x steps, separated by commas.")] = (
        "5x4x40,5x20x1000,15x8x1000"
    ),
    keep: Annotated[Path | None, typer.Option(help="Folder in which the synthetic runs and reports are kept.")] = None,
    write: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Write synthetic runs, make their reports, and measure the cost."""
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes.split(","):
            algorithms, seeds, steps = map(int, size.split("x"))
            folder = (keep or Path(scratch)) / size
            for place, one in enumerate(fitting(steps)[:algorithms]):
                for seed in range(seeds):
                    config = one.model_copy(update={"seed": seed})
                    invent(folder / config.name, config, 0.7 + 0.2 * place / algorithms)
            found[size.replace("x", " x ")] = measure(folder)
    words = [
        "python",
        "-m",
        "benchmarks.report",
        *(["--sizes", sizes] if sizes != "5x4x40,5x20x1000,15x8x1000" else []),
    ]
    text = markdown(found, shlex.join(words))
    Console().print(text, markup=False, soft_wrap=True)
    if write:
        write.write_text(text)


if __name__ == "__main__":
    typer.run(main)
