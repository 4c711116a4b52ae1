"""Speed: samples per second, time by stage, memory, share of the machine's limit; optionally TRL on the same work.

    python -m benchmarks.speed --peer trl --write benchmarks/results/speed.md

Every measurement runs in a fresh process, and the sides alternate (A B A B ...), so that a slower machine slows both.
There are two loads: responses that end where the model ends them, and responses that all run to the limit.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import speed_curves, speed_gains
from benchmarks.speed_models import SHAPES, write
from benchmarks.speed_probe import probe
from benchmarks.speed_report import Series, Table, different_work, rates_table, ratios_table, stage_table
from benchmarks.speed_roofline import Rates, RatesWork, stage_tokens
from benchmarks.speed_work import COIN, OBJECTIVE, Measured, Work
from rlzoo.cli.shell import guarded
from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model.device import resolve_device
from rlzoo.store.provenance import environment

LOADS: dict[Literal["model", "never"], str] = {
    "model": "Responses that end at different lengths",
    "never": "All responses run to the limit",
}
QUICK = {"prompts_per_step": 4, "group_size": 4, "minibatches": 2, "steps": 1}


def works(base: Work, runs: Sequence[int], peer: bool) -> list[Work]:
    """Return the alternating measurements of one load: one run, the peer's one run, and the runs together."""
    solo = base.model_copy(update={"stages": True})
    together = [solo.model_copy(update={"runs": k}) for k in sorted(set(runs)) if k > 1]
    return [solo, *([base.model_copy(update={"side": "trl"})] if peer else []), *together]


def measure(base: Work, runs: Sequence[int], peer: bool, repeats: int, console: Console) -> list[Series]:
    """Measure all in turn, `repeats` times, with fresh seeds; stages and the machine's rates only in the first turn."""
    series = [Series(work) for work in works(base, runs, peer)]
    for turn in range(repeats):
        for one in series:
            fresh = {"seed": turn * max(runs), "stages": one.work.stages and turn == 0}
            work = one.work.model_copy(update=fresh)
            one.measured.append(probe(work, Measured))
            console.print(
                f"{turn + 1}/{repeats} {LOADS[base.ends]}: {one.work.side}, {one.work.runs} runs, "
                f"{one.measured[-1].samples_per_s:.1f} samples/s"
            )
            if work.stages:
                one.rates = probe(
                    RatesWork(work=work.model_copy(update={"threads": 1}), tokens=stage_tokens(work, one.measured[0])),
                    Rates,
                )
    return series


def every_peer_run(base: Work, runs: int, console: Console) -> float:
    """Return the seconds of `runs` TRL runs, one after the other, one seed each, all measured."""
    seconds = 0.0
    for seed in range(runs):
        seconds += probe(base.model_copy(update={"side": "trl", "seed": seed}), Measured).seconds
        console.print(f"TRL, seed {seed}: {seconds:.1f} s so far")
    return seconds


def tables(ends: Literal["model", "never"], series: list[Series]) -> list[Table]:
    """Return the tables of one load."""
    load = LOADS[ends]
    stages = [
        stage_table(f"{load}: stages, {one.work.runs} run{'s' * (one.work.runs > 1)}", one)
        for one in series
        if one.rates is not None
    ]
    return [ratios_table(f"{load}: ratios", series), rates_table(f"{load}: medians", series), *stages]


def show(table: Table, console: Console) -> None:
    """Print a table on the terminal."""
    made = RichTable(*table.head, title=table.title, caption=table.note or None, title_justify="left")
    for row in table.rows:
        made.add_row(*row)
    console.print(made)


def heading(base: Work, model: str, repeats: int, checks: list[str]) -> str:
    """Return the head of the page: the work, the method, the machine, and whether both sides did the same work."""
    env = environment()
    hardware = ", ".join(env["gpu"]) if base.device == "cuda" else f"{env['cpu']}, {base.threads} threads"
    lines = [
        "# Speed",
        "",
        f"One step of one run: {base.prompts_per_step} prompts x {base.group_size} samples of at most "
        f"{base.max_new_tokens} tokens, {base.minibatches} updates, objective `{OBJECTIVE}` (it has a KL term, so the "
        f"reference policy is scored too). Model {model}, {base.precision}. The time includes rollout, credit, updates "
        f"and records of {base.steps} steps after {base.warmup} warm-up steps, and excludes loading, evaluation, "
        "checkpoints and drawing.",
        f"Ratios are medians (smallest..largest) of {repeats} turns, each measurement in a fresh process. TRL trains "
        "one run at a time, so K runs count as K times the measured one. Runs that train together are timed from the "
        "end of the first warm-up to the end of the last step of the last run. Peak memory is the GPU's allocation, or "
        "without a GPU the resident high-water mark after loading; for several processes it is the sum of their marks, "
        "with shared memory counted once.",
        "",
        f"- command: `{shlex.join(['python', '-m', 'benchmarks.speed', *sys.argv[1:]])}`",
        f"- commit: {env['commit']}, {env['started'][:10]}",
        f"- hardware: {hardware}; torch {env['torch']}, transformers {env['transformers']}",
    ]
    return "\n".join([*lines, *(f"- {check}" for check in checks)]) + "\n"


def same_work(ends: Literal["model", "never"], series: list[Series]) -> list[str]:
    """Return a line that states the equal work of both sides, or lines that begin with NOT for differences."""
    trl = next((one for one in series if one.work.side == "trl"), None)
    if trl is None:
        return []
    problems = list(different_work(series[0], trl))
    if problems:
        return [f"NOT the same work, {LOADS[ends].lower()}: {problem}" for problem in problems]
    tokens = [sum(m.tokens_sampled for m in one.measured) for one in (series[0], trl)]
    return [
        f"same work, {LOADS[ends].lower()}: samples, updates and adapter parameters are equal; tokens sampled, and "
        f"trained, {tokens[0]} and TRL {tokens[1]}"
    ]


def model_folder(model: str, base: Work, folder: Path) -> str:
    """Return the model to load; a model with random weights is written to `folder`."""
    if model not in SHAPES:
        return model
    dtype = torch.bfloat16 if base.device == "cuda" else torch.float32
    return str(write(SHAPES[model], folder, mean_length=max(1, base.max_new_tokens // 2), dtype=dtype))


def parsed(runs: str) -> list[int]:
    """Return the numbers of runs in a comma-separated text.

    Raises:
        UserError: not numbers of at least 1.
    """
    try:
        counts = [int(count) for count in runs.split(",")]
    except ValueError:
        raise UserError(f"--runs {runs!r}: give numbers separated by commas, such as 5,20") from None
    if min(counts) < 1:
        raise UserError(f"--runs {runs!r}: each number must be at least 1")
    return counts


def draw_curves(base: Work, points: int | None, console: Console) -> dict[speed_curves.Axis, list[speed_curves.Point]]:
    """Measure along each axis, at its first `points` values or at all."""
    drawn = {}
    for axis in speed_curves.AXES:
        console.print(f"curve against {axis.name}")
        drawn[axis] = list(speed_curves.measure(axis, base, points=points))
    return drawn


@dataclass
class Page:
    """Tables, checks of equal work, and raw measurements, in the order of the page."""

    tables: list[Table] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    raw: list[dict[str, object]] = field(default_factory=list)

    def add_load(
        self, load: Work, counts: Sequence[int], peer: bool, repeats: int, every_run: bool, console: Console
    ) -> None:
        """Measure one load; with `every_run`, as many TRL runs as run together."""
        series = measure(load, counts, peer, repeats, console)
        self.tables += tables(load.ends, series)
        self.checks += same_work(load.ends, series)
        if every_run:
            seconds = every_peer_run(load, max(counts), console) / load.steps
            name = LOADS[load.ends].lower()
            self.checks.append(f"{name}: {max(counts)} runs of TRL, each measured: {seconds:.2f} s/step")
        self.raw += [{"work": s.work.model_dump(), "measured": [m.model_dump() for m in s.measured]} for s in series]

    def show(self, console: Console) -> None:
        """Print the tables and checks."""
        for table in self.tables:
            show(table, console)
        console.print(*self.checks, sep="\n")

    def write(self, path: Path, head: str, picture: Path | None) -> None:
        """Write the page in Markdown; `picture` is the figure of the curves."""
        parts = [head, *(table.markdown() for table in self.tables)]
        parts += [f"![Cost curves]({picture.name})"] if picture else []
        path.write_text("\n\n".join(part.rstrip() for part in parts) + "\n")


@guarded
def main(
    peer: Annotated[Literal["trl"] | None, typer.Option(help="Measure this trainer on the same work too.")] = None,
    model: Annotated[str, typer.Option(help=f"shipped, a folder, or random weights: {', '.join(SHAPES)}.")] = "shipped",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    task: Annotated[str | None, typer.Option(help="Task; a model of random weights gets random prompts.")] = None,
    runs: Annotated[str, typer.Option(help="How many runs together, separated by commas; 1 is always there.")] = "5,20",
    prompts: Annotated[int, typer.Option(help="Prompts per step.")] = 8,
    group: Annotated[int, typer.Option(help="Samples per prompt.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(help="Length of random prompts.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(help="Limit of a response.")] = 32,
    steps: Annotated[int, typer.Option(help="Timed steps.")] = 8,
    warmup: Annotated[int, typer.Option(help="Steps before.")] = 2,
    repeats: Annotated[int, typer.Option(help="Turns.")] = 3,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores if not given.")] = None,
    every_run: Annotated[bool, typer.Option("--every-run", help="Measure as many TRL runs as run together.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A tiny load, one turn: does it work?")] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the measurements.")] = Path("runs/speed"),
    curves: Annotated[bool, typer.Option("--curves", help="Cost curves too, on models of random weights.")] = False,
    loads: Annotated[bool, typer.Option(help="The two loads; without them, curves or gains alone.")] = True,
    gains: Annotated[bool, typer.Option("--gains", help="Also without each fast path of the engine.")] = False,
    write_to: Annotated[Path | None, typer.Option("--write", help="Markdown file to write.")] = None,
) -> None:
    """Measure, print tables, and write them on request."""
    if peer and importlib.util.find_spec("trl") is None:
        raise UserError("--peer trl: TRL is not installed: pip install -c constraints.txt -e .[trl]")
    if not loads and (peer or not (curves or gains)):
        raise UserError("--no-loads measures curves or gains alone: give --curves or --gains, and no --peer")
    if every_run and not peer:
        raise UserError("--every-run measures every run of a peer: give --peer trl too")
    resolve_device(BackboneConfig(device=device))
    base = Work(
        device=device,
        task=task or (COIN if model in SHAPES else "add:medium"),
        prompt_tokens=prompt_tokens,
        prompts_per_step=prompts,
        group_size=group,
        minibatches=min(4, prompts),
        max_new_tokens=max_new_tokens,
        steps=steps,
        warmup=warmup,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    counts = parsed(runs)
    if prompts % base.minibatches:
        raise UserError(
            f"--prompts {prompts}: give a multiple of {base.minibatches}, so that updates are alike in size"
        )
    if quick:
        base, counts, repeats = base.model_copy(update=QUICK), [2], 1
    console, page = Console(), Page()
    with tempfile.TemporaryDirectory() as folder:
        base = base.model_copy(update={"model": model_folder(model, base, Path(folder))})
        for ends in LOADS if loads else ():
            load = base.model_copy(update={"ends": ends})
            page.add_load(load, counts, peer is not None, repeats, every_run, console)
        drawn = draw_curves(base, 2 if quick else None, console) if curves else {}
        page.tables += [speed_curves.table(axis, points) for axis, points in drawn.items()]
        if gains:
            page.tables.append(speed_gains.measure(base, max(counts), repeats, console))
    page.show(console)
    out.mkdir(parents=True, exist_ok=True)
    (out / "measured.json").write_text(json.dumps(page.raw, indent=1) + "\n")
    picture = (write_to or out / "speed").with_suffix(".png")
    if drawn:
        speed_curves.draw(drawn, picture)
    if write_to:
        page.write(write_to, heading(base, model, repeats, page.checks), picture if drawn else None)
    if any(check.startswith("NOT") for check in page.checks):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
