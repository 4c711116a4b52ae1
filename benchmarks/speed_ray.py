"""What a Ray cluster costs: the same fleet on 1 and on 2 workers of this machine, with forked processes beside.

    overhead  =  seconds with Ray / seconds with forked processes - 1

The time of training runs from the first record of step 1 to the last record of the last step, by the driver's clock.
What comes before it (a cluster is started, workers import and load) is given by itself: Ray has workers load what
forked processes inherit. Takes turns, so that a change of the machine's load meets both.

python -m benchmarks.speed_ray --runs 8 --steps 10 --repeats 2
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import typer

from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import RunConfig
from rlzoo.training.launch import train_fleet

Name = Literal["local", "ray"]


def fleet(runs: int, steps: int, engine: EngineSettings) -> dict[str, RunConfig]:
    """Return GRPO runs of the shipped model on add:medium, with one checkpoint at the end and no evaluation between."""
    return {
        f"seed{seed}": RunConfig(
            objective="grpo",
            seed=seed,
            task={"name": "add:medium"},
            engine=engine,
            train={"steps": steps, "save_every": steps},
            evaluation={"every": 10**9, "prompts": 8, "final_prompts": 0},
        )
        for seed in range(runs)
    }


def measure(name: Name, workers: int, runs: int, steps: int) -> tuple[float, float]:
    """Train a fleet; return the seconds of training, and those before it."""
    heard: list[float] = []

    def hear(_: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train":
            heard.append(time.perf_counter())

    configs = fleet(runs, steps, EngineSettings(name=name, processes=workers))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summaries = train_fleet({key: (config, Path(folder) / key) for key, config in configs.items()}, on_record=hear)
    assert len(heard) == runs * steps and all(summary["state"] == "done" for summary in summaries.values())
    return heard[-1] - heard[0], heard[0] - start


def main(
    runs: Annotated[int, typer.Option(min=1)] = 8,
    steps: Annotated[int, typer.Option(min=2)] = 10,
    repeats: Annotated[int, typer.Option(min=1)] = 2,
    workers: Annotated[str, typer.Option(help="Numbers of workers.")] = "1,2",
) -> None:
    """Measure and print a table in Markdown."""
    print(f"{runs} runs of {steps} steps, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    print("| workers | forked s | ray s | overhead | before, forked s | before, ray s |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in map(int, workers.split(",")):
        measured: dict[Name, list[tuple[float, float]]] = {"local": [], "ray": []}
        for turn in range(repeats):
            for name in ("local", "ray") if turn % 2 == 0 else ("ray", "local"):
                measured[name].append(measure(name, count, runs, steps))
        train, before = ({n: median(one[k] for one in measured[n]) for n in measured} for k in (0, 1))
        overhead = train["ray"] / train["local"] - 1
        print(
            f"| {count} | {train['local']:.1f} | {train['ray']:.1f} | {100 * overhead:+.1f}% "
            f"| {before['local']:.1f} | {before['ray']:.1f} |",
            flush=True,
        )
    print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    typer.run(main)
