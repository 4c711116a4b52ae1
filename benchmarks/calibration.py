"""Error rates and power of the verdicts, for the whole procedure: seeds, problems, families of pairs, interim looks.

    python -m benchmarks.calibration --write benchmarks/results/calibration.md

Comparisons are simulated: an algorithm solves a problem with a probability that depends on the problem, the seed, and
an effect of the algorithm on this problem; all runs are evaluated with the same noise. Two arms that are equally good
on the task, over all seeds and problems, must not be judged better or worse. The functions that decide every comparison
judge them.

`benchmarks.calibration_runs` adds a section on runs that were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from scipy import stats

from rlzoo.cli.shell import guarded
from rlzoo.config.comparison import MARGIN
from rlzoo.stats.crossed import Estimate, estimate, estimate_scores, noncentrality
from rlzoo.stats.judge import decide
from rlzoo.stats.spending import spent
from rlzoo.store.provenance import environment

LEVEL = 0.05
SEEDS = (4, 8, 16)
PROBLEMS = (128, 1024)
ARMS = (2, 5)
LOOKS = (4, 8, 12, 16)

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int, int], Array]
"""(rng, arms, seeds, problems) -> outcomes of equally good arms, [arms, seeds, problems]."""


@dataclass(frozen=True)
class Rate:
    """A relative frequency; as text in percent with its interval."""

    hits: int
    trials: int

    @property
    def limits(self) -> tuple[float, float]:
        """Return the 95% interval (Wilson)."""
        found = stats.binomtest(self.hits, self.trials).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        low, high = self.limits
        return f"{100 * self.hits / self.trials:.1f} ({100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True)
class Task:
    """A simulated task, in logits.

    Attributes:
        about: a description for the page.
        level: mean logit of a right answer.
        seeds: standard deviation of the seeds' effects.
        problems: standard deviation of the difference of two algorithms over problems.
    """

    about: str
    level: float
    seeds: float
    problems: float

    def __call__(self, rng: np.random.Generator, arms: int, n: int, m: int) -> Array:
        """Draw arms that are equally good on the task."""
        difficulty = self.level + rng.normal(0, 1.5, (1, 1, m))
        better_at = rng.normal(0, self.problems / np.sqrt(2), (arms, 1, m))
        noise = np.log(1 / rng.random((1, 1, m)) - 1)
        logit = difficulty + better_at + rng.normal(0, self.seeds, (arms, n, 1)) + rng.normal(0, 0.5, (arms, n, m))
        return (logit > noise).astype(np.float64)


TASKS = {
    "middling": Task("about 68% right, seeds differ by about 2 points", 1.2, 0.15, 0.4),
    "near the ceiling": Task("about 92% right", 3.6, 0.15, 0.4),
    "unlike problems": Task("the difference of two algorithms varies much between problems", 1.2, 0.05, 1.0),
    "one algorithm": Task("arms differ only by their seeds", 1.2, 0.15, 0.0),
}


def false_alarms(draw: Draw, arms: int, n: int, m: int, trials: int) -> Rate:
    """Return the rate of comparisons of equally good arms in which any pair is judged better or worse."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(trials):
        found = [estimate(b - a) for a, b in combinations(draw(rng, arms, n, m), 2)]
        if not any(one.interval(LEVEL / len(found)).sign for one in found):
            continue  # Holm's first step finds nothing, and p-values are slow
        hits += any(one.verdict in ("better", "worse") for one in decide(found, MARGIN, LEVEL))
    return Rate(hits, trials)


def coverage(draw: Draw, n: int, m: int, trials: int, over: Callable[[Array], Estimate] = estimate) -> Rate:
    """Return how often the 95% interval of a difference contains the true one, which is 0."""
    rng = np.random.default_rng(1)
    hits = sum(over(np.subtract(*draw(rng, 2, n, m))).interval().sign == 0 for _ in range(trials))
    return Rate(hits, trials)


def over_seeds(difference: Array) -> Estimate:
    """Return the t estimate from the seeds' means, which ignores the sampling of problems."""
    return estimate_scores(list(difference.mean(axis=1)))


def wrong_equivalents(draw: Draw, n: int, m: int, trials: int) -> Rate:
    """Return the rate of comparisons of two arms exactly `MARGIN` apart that are judged equivalent."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(trials):
        found = estimate(np.subtract(*draw(rng, 2, n, m)) + MARGIN)
        hits += abs(found.mean) < MARGIN and decide([found], MARGIN, LEVEL)[0].verdict == "equivalent"
    return Rate(hits, trials)


def power(draw: Draw, n: int, m: int, trials: int) -> Rate:
    """Return the rate of comparisons that find the difference which their design detects with probability 0.8."""
    rng = np.random.default_rng(3)
    differences = [np.subtract(*draw(rng, 2, n, m)) for _ in range(trials)]
    error = float(np.std([d.mean() for d in differences]))
    shift = noncentrality(n - 1, LEVEL, 0.8) * error
    hits = sum(estimate(d + shift).interval(LEVEL).sign > 0 for d in differences)
    return Rate(hits, trials)


def looks(draw: Draw, m: int, trials: int, spending: bool) -> Rate:
    """Return the rate of comparisons with more seeds at each of four looks in which any look gives better or worse."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(trials):
        difference = np.subtract(*draw(rng, 2, LOOKS[-1], m))
        levels = [spent(LEVEL, look) if spending else LEVEL for look in range(1, len(LOOKS) + 1)]
        hits += any(estimate(difference[:n]).interval(level).sign for n, level in zip(LOOKS, levels, strict=True))
    return Rate(hits, trials)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def verdict_rows(name: str, draw: Draw, trials: int) -> Iterable[list[str]]:
    """Yield the rates of wrong and right verdicts on one task, for each number of seeds and problems."""
    for n in SEEDS:
        for m in PROBLEMS:
            few = trials if m < 500 else max(200, trials // 4)  # draws of many problems are slow
            alarms = [str(false_alarms(draw, arms, n, m, few)) for arms in ARMS]
            rest = [str(of(draw, n, m, few)) for of in (wrong_equivalents, power)]
            yield [name, str(n), str(m), *alarms, *rest]


def coverage_rows(trials: int) -> Iterable[list[str]]:
    """Yield the coverage of intervals over seeds and problems, and over seeds alone."""
    for name, draw in TASKS.items():
        for n in SEEDS:
            for m in PROBLEMS:
                few = trials if m < 500 else max(200, trials // 4)
                both, alone = coverage(draw, n, m, few), coverage(draw, n, m, few, over_seeds)
                yield [name, str(n), str(m), str(both), str(alone)]


VERDICTS = (
    "scores",
    "seeds",
    "problems",
    *(f"false alarms, {arms} arms" for arms in ARMS),
    "wrong equivalents",
    "power",
)


def page(command: str, trials: int) -> str:
    """Return the results as Markdown."""
    env = environment()
    lines = [
        "# Calibration of the verdicts",
        "",
        "How often is the verdict of a comparison wrong? In percent of comparisons, with 95% intervals.",
        "",
        f"- command: `{command}`",
        f"- commit: {env['commit']}, {env['started'][:10]}",
        f"- hardware: {env['cpu']}, {env['cores']} cores; numpy {env['numpy']}",
        f"- level {LEVEL:.0%}; margin {100 * MARGIN:g} points; {trials:,} comparisons per number, "
        f"{max(200, trials // 4):,} with 1,024 problems",
        "",
        "## Coverage",
        "",
        "Two algorithms are equally good over all seeds and problems of a task. How often does the 95% interval of "
        "their difference contain 0? It should be 95.",
        "",
        *table(("task", "seeds", "problems", "over seeds and problems", "over seeds alone"), coverage_rows(trials)),
        "",
        *(f"- {name}: {task.about}" for name, task in TASKS.items()),
        "",
        "## Verdicts",
        "",
        "False alarms: equally good arms of which any pair is judged better or worse (5 arms are 10 pairs, with Holm's "
        "correction); it should be at most 5. Wrong equivalents: two arms exactly the margin apart, judged equivalent; "
        "at most 5. Power: a true difference of the size stated as detectable is found; about 80.",
        "",
        *table(VERDICTS, (row for name, draw in TASKS.items() for row in verdict_rows(name, draw, trials))),
        "",
        "## Looks",
        "",
        f"Seeds are added from {LOOKS[0]} to {LOOKS[-1]} in {len(LOOKS)} looks; the first better or worse ends the "
        "comparison.",
        "",
        *table(
            ("task", "each look at 5%", "the level is spent over the looks"),
            ([name, *(str(looks(draw, 128, trials, how)) for how in (False, True))] for name, draw in TASKS.items()),
        ),
    ]
    return "\n".join(lines) + "\n"


@guarded
def main(
    write: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    trials: Annotated[int, typer.Option(min=200, help="Comparisons per number.")] = 2_000,
) -> None:
    """Measure how often verdicts on simulated comparisons are wrong."""
    words = f" --trials {trials}" if trials != 2_000 else ""
    text = page(f"python -m benchmarks.calibration{words}", trials)
    Console().print(Markdown(text))
    if write:
        write.write_text(text)


if __name__ == "__main__":
    typer.run(main)
