"""Calibration on runs that were made: whole comparisons drawn from a pool of runs, and what they say.

    one comparison = a plan with its seeds and problems, its looks, its preconditions, its verdict or refusal

A pool has two algorithms with many seeds each, every run with its outcome on each held-out problem. A comparison of an
algorithm with itself takes two sets of its runs, none twice, and pairs them at random: runs of one algorithm with
different seeds are exchangeable, so every better or worse is a false alarm. A comparison of the two takes some seeds of
both, paired as they were made. Problems are drawn too, the same for both rows.

All comparisons are drawn from one pool, so they are not independent, and a pool of few seeds has its own luck.

    python -m benchmarks.calibration_runs --out runs/calibration --write benchmarks/results/calibration.md

trains the pool, unless it is there, and puts its section at the end of the page of `benchmarks.calibration`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.calibration import Rate, table
from rlzoo.api.reported import compare
from rlzoo.cli.live import watched
from rlzoo.cli.shell import guarded
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.config.sources import settings
from rlzoo.errors import UserError
from rlzoo.experiments.compare import Comparison
from rlzoo.stats.comparisons import primary
from rlzoo.stats.scores import Trace, score_of
from rlzoo.store.outcomes import pack
from rlzoo.store.provenance import environment

RECIPE = Path("benchmarks/recipes/calibration.toml")
TITLE = "## Runs that were trained"

WORDS = ("better", "worse", "equivalent", "inconclusive", "no verdict")
HEAD = ("rows", "problems", "seeds at each look", *WORDS)


@dataclass(frozen=True)
class Design:
    """How a comparison is made: its number of problems, and of seeds at each look; the first better or worse stops."""

    problems: int
    looks: tuple[int, ...]


def designs(runs: int, problems: int) -> list[Design]:
    """Return the designs that two sets of runs, none twice, allow: one look with few or all, and both in turn."""
    half = runs // 2
    seeds = [(min(4, half),), (half,), (min(4, half), half)] if half > 4 else [(half,)]
    return [Design(m, looks) for m in sorted({min(256, problems), problems}) for looks in seeds]


def outcome(a: Sequence[Trace], b: Sequence[Trace], plan: Plan, design: Design, chosen: Sequence[int]) -> str:
    """Return what a comparison says in the end: a verdict on `a` as seen from `b`, or `no verdict`.

    Args:
        a, b: at least as many runs as the last look has seeds, the i-th of both a pair.
        plan: of the pool; rows, seeds and problems become those of the comparison.
        chosen: the problems.
    """
    said = "no verdict"
    for look, n in enumerate(design.looks, start=1):
        traces = [_taken(run, row, i, chosen) for row, runs in (("a", a), ("b", b)) for i, run in enumerate(runs[:n])]
        own = plan.model_copy(update={"rows": ("a", "b"), "seeds": tuple(range(n)), "problems": len(chosen)})
        said = primary(traces, own, look).pair("a", "b").told
        if said in ("better", "worse"):
            break
    return said


def _taken(run: Trace, row: str, seed: int, chosen: Sequence[int]) -> Trace:
    """The run as one of another comparison, evaluated on the chosen problems alone."""
    return replace(run, algorithm=row, seed=seed, records=[_on(record, chosen) for record in run.records])


def _on(record: Mapping[str, Any], chosen: Sequence[int]) -> Mapping[str, Any]:
    if record["kind"] != "test":
        return record
    right = np.asarray(score_of(record))[list(chosen)]
    return {**record, "accuracy": float(right.mean()), "outcomes": pack(right.tolist())}


def drawn(
    pool: Mapping[str, Sequence[Trace]], rows: tuple[str, str], plan: Plan, design: Design, trials: int
) -> Counter[str]:
    """Return how often comparisons of two rows of a pool said what; of a row with itself, no run is in both arms."""
    rng = np.random.default_rng(0)
    first, second = (pool[row] for row in rows)
    size, n = np.size(score_of(first[0].tests[-1])), design.looks[-1]
    said: Counter[str] = Counter()
    for _ in range(trials):
        order = rng.permutation(len(first))
        left, right = (order[:n], order[n : 2 * n]) if rows[0] == rows[1] else (order[:n], order[:n])
        chosen = rng.permutation(size)[: design.problems]
        said[outcome([first[i] for i in left], [second[i] for i in right], plan, design, chosen.tolist())] += 1
    return said


def pool_of(comparison: Comparison) -> dict[str, list[Trace]]:
    """Return row -> its runs in the order of their seeds."""
    rows: dict[str, list[Trace]] = {}
    for trace in sorted(comparison.traces, key=lambda one: one.seed):
        rows.setdefault(trace.algorithm, []).append(trace)
    return rows


def section(comparison: Comparison, plan: Plan, command: str, trials: int) -> str:
    """Return the section of the page on a pool of two rows, as Markdown."""
    pool, env = pool_of(comparison), environment()
    a, b = pool
    difference, told = comparison.judgement.pair(a, b).difference, comparison.judgement.pair(a, b).told
    ends = [f"{100 * end:.1f}" for end in (difference.low, difference.high) if end is not None]
    spread = [100 * np.std([np.mean(score_of(one.tests[-1])) for one in runs], ddof=1) for runs in pool.values()]
    return "\n".join(
        [
            TITLE,
            "",
            f"- command: `{command}`",
            f"- commit: {env['commit']}, {env['started'][:10]}",
            f"- pool: {len(pool[a])} runs of {a}, {len(pool[b])} of {b}. {comparison.judgement.scope}",
            f"- standard deviation over seeds: {spread[0]:.1f} and {spread[1]:.1f} points",
            f"- all of it judged at once: {a} - {b} {100 * difference.mean:+.1f} points [{', '.join(ends)}], {told}",
            "",
            f"Each line has {trials:,} comparisons, of runs and problems drawn from the pool without replacement, with "
            "plan, preconditions, looks and verdicts as in `rlzoo compare`. In percent, with 95% intervals of the "
            "drawing: all comparisons share one pool, so its own luck is in every line. A row against itself: runs of "
            "different seeds, none twice, paired at random; every better or worse is a false alarm, and there should "
            "be at most 5.",
            "",
            *table(HEAD, lines(pool, plan, trials)),
            "",
        ]
    )


def lines(pool: Mapping[str, Sequence[Trace]], plan: Plan, trials: int) -> Iterator[list[str]]:
    """Yield a line of the table for each pair of rows and design."""
    a, b = pool
    problems = int(np.size(score_of(pool[a][0].tests[-1])))
    for rows in ((a, a), (b, b), (a, b)):
        for design in designs(len(pool[a]), problems):
            said = drawn(pool, rows, plan, design, trials)
            rates = [str(Rate(said[word], trials)) if said[word] else "0" for word in WORDS]
            yield [" against ".join(rows), str(design.problems), " then ".join(map(str, design.looks)), *rates]


@guarded
def main(
    config: Annotated[Path, typer.Option("--config", "-c")] = RECIPE,
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("runs/calibration"),
    write: Annotated[Path | None, typer.Option(help="Markdown file whose last section this becomes.")] = None,
    trials: Annotated[int, typer.Option(min=20, help="Comparisons per line.")] = 500,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C")] = None,
    resume: bool = False,
) -> None:
    """Train the pool, unless it is there, and draw comparisons from it."""
    chosen = settings(CompareConfig, config, assignments or [], {})
    if len(chosen.objectives) != 2 or len(chosen.seeds) < 4 or chosen.tasks:
        raise UserError("the pool is of two objectives on one task, with 4 seeds or more of each")
    comparison = compare(chosen, out, resume=resume, watch=partial(watched, folder=out))
    words = ["--config", str(config)] if config != RECIPE else []
    words += ["--trials", str(trials)] if trials != 500 else []
    words += [word for assignment in assignments or [] for word in ("--set", assignment)]
    command = shlex.join(["python", "-m", "benchmarks.calibration_runs", *words])
    text = section(comparison, Plan.of(chosen), command, trials)
    Console().print(Markdown(text))
    if write:
        before = write.read_text().partition(TITLE)[0].rstrip() if write.is_file() else "# Calibration of the verdicts"
        write.write_text(f"{before}\n\n{text}")


if __name__ == "__main__":
    typer.run(main)
