"""The A/A control: an algorithm against itself. How often do verdicts say what is not so, and find what is?

    python -m benchmarks.calibration --out runs/calibration --write benchmarks/results/calibration.md

Trains one algorithm with many seeds. Thousands of times, two arms of n runs each are drawn from these at random,
without replacement, and compared by the function that decides every comparison, `rlzoo.stats.verdicts.decide`. The i-th
run of one arm is paired with the i-th of the other: runs of one algorithm with different seeds are exchangeable, so
each pair is as likely to differ one way as the other, and every better or worse is a false alarm. (Runs with the same
seed would be the same run.) What sharing a seed adds in a real comparison is a common part of both runs, which a
difference leaves out.

The interval of a rate is over the draws. It takes the runs as they are: with few of them, other seeds would give
another rate.

An arm that is shifted by the margin is not equivalent: how often is it called so? One that is shifted by the smallest
detectable difference has to be found four times in five. The same is measured on scores drawn from known distributions.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from scipy import stats

from rlzoo.api.reported import compare
from rlzoo.cli.live import watched
from rlzoo.cli.shell import guarded
from rlzoo.config.comparison import MARGIN, CompareConfig
from rlzoo.config.sources import settings
from rlzoo.errors import UserError
from rlzoo.experiments.compare import Comparison
from rlzoo.report.progress import clock_time
from rlzoo.stats.tests import bootstrap_mean, detectable, difference_p, interquartile_mean
from rlzoo.stats.verdicts import Verdict, decide
from rlzoo.store.provenance import environment

RECIPE = Path("benchmarks/recipes/calibration.toml")
LEVEL = 0.05
SEEDS = (4, 8, 16)
ARMS = (2, 5)

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Array]
"""(rng, arms, n) -> scores of n runs of one algorithm in each arm, [arms, n]."""


@dataclass(frozen=True)
class Rate:
    """How often something happened."""

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


def false_alarms(draw: Draw, arms: int, n: int, trials: int) -> Rate:
    """Comparisons of one algorithm with itself in which any pair came out better or worse."""
    return _counted(draw, arms, n, trials, {"better", "worse"})


def wrong_equivalents(draw: Draw, n: int, trials: int) -> Rate:
    """Comparisons of two arms exactly `MARGIN` apart that were called equivalent."""
    return _counted(draw, 2, n, trials, {"equivalent"}, shift=MARGIN)


def power(draw: Draw, std: float, n: int, trials: int) -> Rate:
    """Comparisons that found the smallest detectable difference, with its sign.

    The margin is out of the way, as a detectable difference may be too small to matter.

    Args:
        std: standard deviation of one run's score; that of a difference of two is sqrt(2) times as large.
    """
    shift = detectable(math.sqrt(2) * std, n, LEVEL)
    return _counted(draw, 2, n, trials, {"better"}, shift=shift, margin=1e-6)


def _counted(
    draw: Draw, arms: int, n: int, trials: int, wanted: set[Verdict], shift: float = 0.0, margin: float = MARGIN
) -> Rate:
    """Count comparisons with a wanted verdict on any pair, the later arm seen from the earlier; the last is shifted."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(trials):
        scores = draw(rng, arms, n)
        scores[-1] += shift
        differences = [(b - a).tolist() for a, b in combinations(scores, 2)]
        hits += any(decision.verdict in wanted for decision in decide(differences, margin, LEVEL))
    return Rate(hits, trials)


def from_pool(pool: Array) -> Draw:
    """Draw runs that were made, each at most once per comparison."""

    def draw(rng: np.random.Generator, arms: int, n: int) -> Array:
        return rng.permutation(pool)[: arms * n].reshape(arms, n)

    return draw


def _normal(rng: np.random.Generator, arms: int, n: int) -> Array:
    return rng.normal(0.8, 0.03, (arms, n))


def _skewed(rng: np.random.Generator, arms: int, n: int) -> Array:
    return 1 - rng.gamma(0.7, 0.03, (arms, n))


def _discrete(rng: np.random.Generator, arms: int, n: int) -> Array:
    return np.round(256 * np.clip(1 - rng.gamma(0.7, 0.01, (arms, n)), 0, 1)) / 256


def _dropout(rng: np.random.Generator, arms: int, n: int) -> Array:
    return np.where(rng.random((arms, n)) < 0.1, 0.3, rng.normal(0.9, 0.02, (arms, n)))


KNOWN: dict[str, tuple[str, Draw]] = {
    "normal": ("mean 80%, standard deviation 3 points", _normal),
    "skewed": ("100% less a gamma variable of shape 0.7: most runs near the ceiling, some well below", _skewed),
    "discrete": ("the same, nearer to the ceiling and rounded to a share of 256 prompts", _discrete),
    "dropout": ("90%, but one run in ten collapses to 30%", _dropout),
}


def deviation(draw: Draw) -> float:
    """Standard deviation of a known distribution, from many draws."""
    return float(draw(np.random.default_rng(1), 1, 1_000_000).std())


def ways_to_test(draw: Draw, n: int, trials: int) -> dict[str, Rate]:
    """False alarms of single tests at `LEVEL`, on differences of two arms of one algorithm."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], (n, 4000))
    if n <= 12:
        signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
    counts = dict.fromkeys(("t", "sign flips", "BCa bootstrap", "bootstrap of the IQM"), 0)
    for _ in range(trials):
        a, b = draw(rng, 2, n)
        d = a - b
        flipped = np.abs(d @ signs) >= abs(d.sum()) - 1e-9
        counts["t"] += difference_p(d) < LEVEL
        counts["sign flips"] += bool(flipped.mean() < LEVEL)
        counts["BCa bootstrap"] += bootstrap_mean(d).sign != 0
        counts["bootstrap of the IQM"] += interquartile_mean(d).sign != 0
    return {name: Rate(count, trials) for name, count in counts.items()}


def verdict_table(cases: Mapping[str, tuple[Draw, float, int]], trials: int) -> list[str]:
    """Rates of the shipped verdicts, one row per case and number of seeds, and how many are above the level.

    Args:
        cases: name -> how to draw, the standard deviation of a run, and how many runs there are to draw from.
    """
    columns = [f"false alarms, {arms} arms" for arms in ARMS] + ["wrong equivalents", "power at the detectable"]
    lines = ["| scores | seeds | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    wrong: list[Rate] = []
    for (name, (draw, std, size)), n in product(cases.items(), SEEDS):
        if 2 * n > size:
            continue
        alarms = [false_alarms(draw, arms, n, trials) if arms * n <= size else None for arms in ARMS]
        row = [*alarms, wrong_equivalents(draw, n, trials)]
        wrong += filter(None, row)
        cells = ["-" if rate is None else str(rate) for rate in (*row, power(draw, std, n, trials))]
        lines.append(f"| {name} | {n} | " + " | ".join(cells) + " |")
    above = sum(rate.limits[0] > LEVEL for rate in wrong)
    return [
        *lines,
        "",
        f"{above or 'None'} of the {len(wrong)} rates of wrong verdicts {'is' if above == 1 else 'are'} above "
        f"{LEVEL:.0%} with its whole interval; of rates that are exactly at it, one in forty would be by chance.",
    ]


def ways_table(trials: int) -> list[str]:
    """False alarms of single tests on the known distributions."""
    rows = {(name, n): ways_to_test(draw, n, trials) for (name, (_, draw)), n in product(KNOWN.items(), SEEDS)}
    columns = list(next(iter(rows.values())))
    lines = ["| scores | seeds | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for (name, n), rates in rows.items():
        lines.append(f"| {name} | {n} | " + " | ".join(str(rate) for rate in rates.values()) + " |")
    return lines


def pool_of(comparison: Comparison) -> Array:
    """Final accuracies of the runs that finished."""
    return np.array([s["after"]["accuracy"] for s in comparison.summaries if s["after"]], np.float64)


def page(config: CompareConfig | None, comparison: Comparison | None, command: str, trials: int) -> str:
    """The results as Markdown; without a comparison, those of the known distributions alone."""
    env = environment()
    lines = [
        "# Calibration of the verdicts",
        "",
        "How often does a comparison say what is not so? In percent of comparisons, with 95% interval.",
        "",
        f"- command: `{command}`",
        f"- commit: {env['commit']}, {env['started'][:10]}",
        f"- hardware: {env['cpu']}, {env['cores']} cores; torch {env['torch']}, numpy {env['numpy']}",
        f"- level {LEVEL:.0%} for any better or worse in a comparison, and for any equivalent; margin "
        f"{100 * MARGIN:g} points; {trials:,} comparisons per number",
        "",
        "False alarms: one algorithm against itself, and any pair came out better or worse (5 arms are 10 pairs, with "
        "Holm's correction). Wrong equivalents: two arms exactly the margin apart, called equivalent. Power: a true "
        "difference of the size that is stated as detectable, found; it should be 80.",
    ]
    if config is not None and comparison is not None:
        pool = pool_of(comparison)
        lines += [
            "",
            "## Runs of one algorithm",
            "",
            f"{len(pool)} runs of {config.objectives[0].name} on {config.task.name}"
            f"{':' + config.task.level if config.task.level else ''}, {config.train.steps} steps, in "
            f"{clock_time(comparison.elapsed_s)}: held-out accuracy {pool.mean():.1%} on average, standard deviation "
            f"{100 * pool.std(ddof=1):.1f} points, {pool.min():.1%} to {pool.max():.1%}. Arms are drawn from them "
            "without replacement and paired at random, so each row is about comparisons of these runs.",
            "",
            *verdict_table({config.objectives[0].name: (from_pool(pool), float(pool.std(ddof=1)), len(pool))}, trials),
        ]
    known = {name: (draw, deviation(draw), 10**9) for name, (_, draw) in KNOWN.items()}
    lines += [
        "",
        "## Known distributions",
        "",
        *(f"- {name}: {about}" for name, (about, _) in KNOWN.items()),
        "",
        *verdict_table(known, trials),
        "",
        "## Why t",
        "",
        f"False alarms of a single test at {LEVEL:.0%}, two arms, {trials // 5:,} comparisons per number. Bootstrap "
        "intervals are too narrow with few seeds; sign flips cannot reach 5% with five seeds or fewer. So verdicts and "
        "their intervals are those of t.",
        "",
        *ways_table(trials // 5),
    ]
    return "\n".join(lines) + "\n"


@guarded
def main(
    config: Annotated[Path, typer.Option("--config", "-c")] = RECIPE,
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("runs/calibration"),
    write: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
    known_only: Annotated[bool, typer.Option("--known-only", help="No runs: known distributions alone.")] = False,
    trials: Annotated[int, typer.Option(min=200, help="Comparisons per number.")] = 10_000,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C")] = None,
    resume: bool = False,
) -> None:
    """Train the runs, unless they are there, and measure how often verdicts are wrong."""
    chosen = comparison = None
    words = ["--config", str(config)] if config != RECIPE else []
    words += ["--known-only"] if known_only else []
    words += ["--trials", str(trials)] if trials != 10_000 else []
    words += [word for assignment in assignments or [] for word in ("--set", assignment)]
    if not known_only:
        chosen = settings(CompareConfig, config, assignments or [], {})
        if len(chosen.objectives) != 1 or len(chosen.seeds) < 2 * SEEDS[0]:
            raise UserError(
                f"the control compares one objective with itself: name one, with {2 * SEEDS[0]} seeds or more"
            )
        comparison = compare(chosen, out, resume=resume, watch=partial(watched, folder=out))
    text = page(chosen, comparison, shlex.join(["python", "-m", "benchmarks.calibration", *words]), trials)
    Console().print(Markdown(text))
    if write:
        write.write_text(text)


if __name__ == "__main__":
    typer.run(main)
