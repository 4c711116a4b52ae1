"""Screen tables of comparisons, single runs and evaluations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from rlzoo.report.notes import controls, failures, misfits, unspent
from rlzoo.report.palette import looks
from rlzoo.report.progress import clock_time, short_count
from rlzoo.stats.estimates import contrast_of, mean_of
from rlzoo.stats.intervals import Interval
from rlzoo.stats.scores import Trace, final_scores
from rlzoo.stats.sentences import sentences
from rlzoo.store.run_folder import REPORT

if TYPE_CHECKING:
    from rlzoo.experiments.compare import Comparison

UNLIKE_SIDES = 1e-3
"""If the two sides of an interval differ by more than this, its ends are written instead of ±."""

ROOM_FOR_LENGTHS = 90
"""Minimum terminal width for the column of response lengths: a narrower table has the names whole instead."""
ROOM_FOR_MORE = 120
"""Minimum terminal width for the columns of tuned settings and pass@k; they are also listed below the table."""


def comparison_table(comparison: Comparison, width: int = 100) -> Table:
    """Return one row per algorithm: held-out accuracy with 95% intervals over seeds, and what it cost.

    Args:
        width: columns of the terminal; the table fits 80.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 3 if width >= 100 else 1, 0, 0), header_style="dim")
    table.add_column("", overflow="fold")  # a long name is wrapped before a number is cut off
    headings = ["before\n%", "after\n%", "gain\npoints", "to the best\npoints"]
    lengths = ["length\ntokens"] if width >= ROOM_FOR_LENGTHS else []
    tuned = list(comparison.rows[0].tuned or {}) if width >= ROOM_FOR_MORE else []
    k = max((row.pass_k or 0 for row in comparison.rows), default=0)
    passes = [f"pass@{k}\n%"] if k and width >= ROOM_FOR_MORE else []
    costs = ["sampled\ntokens", "engine\ntime"]
    for heading in (*(f"\n{field}" for field in tuned), *headings, *lengths, *passes, *costs):
        table.add_column(heading, justify="right", no_wrap=True)
    differences = to_the_best(comparison.traces)
    ink = {name: look.ink for name, look in looks(row.objective for row in comparison.rows).items()}
    for row in comparison.rows:
        name = Text(row.objective, style=ink[row.objective])
        if row.failed:
            name.append(f" {row.failed} of {row.seeds} failed", style="bold red")
        table.add_row(
            name,
            *(f"{(row.tuned or {})[field]:g}" for field in tuned),
            plus_minus(row.before),
            plus_minus(row.after),
            points(row.gain),
            points(differences.get(row.objective)),
            *(f"{number(row.length_before)}→{number(row.length_after)}" for _ in lengths),
            *(Text(before_and_after(row.pass_before, row.pass_after)) for _ in passes),
            short_count(row.tokens_sampled),
            clock_time(row.engine_s),
        )
    return table


def verdicts(comparison: Comparison) -> list[str]:
    """Return the verdicts in words, one line each; the first says what they hold for."""
    return [comparison.judgement.scope, *sentences(comparison.judgement)]


def comparison_notes(comparison: Comparison) -> list[str]:
    """Return the notes below the table: how to read it, failures, and the folder."""
    seeds = max(row.seeds for row in comparison.rows)
    if seeds == 1:
        accuracy = "Held-out accuracy of one seed: without more seeds there is no interval and no verdict. "
    else:
        accuracy = (
            f"Held-out accuracy, mean ± 95% interval over {seeds} seeds and the problems; gain and distance to the "
            "best are paired differences with their own intervals, dim where the interval contains 0. "
        )
    judgement = comparison.judgement
    if judgement.pairs and judgement.refusal is None:
        accuracy += (
            f"Verdicts allow for {len(judgement.pairs)} questions: a wrong better or worse among them has a chance of "
            f"at most {100 * judgement.level:.3g}%. "
        )
    took = f"Tokens and engine time are means per run; together the runs took {clock_time(comparison.elapsed_s)}."
    notes = [accuracy + took]
    notes += [
        *beyond_the_table(comparison),
        *searched(comparison.tune),
        *(comparison.declared.notes if comparison.declared else []),
        *misfits(comparison.summaries),
        *controls(comparison.summaries),
        *unspent(comparison.summaries),
        *failures(comparison.summaries),
    ]
    notes.append(f"Report: {comparison.folder / REPORT}; table and runs are beside it")
    return notes


def beyond_the_table(comparison: Comparison) -> list[str]:
    """Return a line on pass@k before and after, and one on tuned settings, where there are any."""
    rows = [row for row in comparison.rows if row.pass_k]
    passes = [f"{row.objective} {before_and_after(row.pass_before, row.pass_after)}" for row in rows]
    tuned = [f"{row.objective} {value:g}" for row in comparison.rows for value in (row.tuned or {}).values()]
    lines = [f"pass@{rows[0].pass_k} before and after, %: {', '.join(passes)}."] if rows else []
    names = list(comparison.rows[0].tuned or {})
    return lines + ([f"{names[0]}: {', '.join(tuned)}."] if names else [])


def searched(tune: Mapping[str, Any] | None) -> list[str]:
    """Return a line on the search before a comparison: what it cost, and where it may have been too narrow."""
    if tune is None:
        return []
    each = next(iter(tune.get("spent", {}).values()), {}).get("runs")
    alike = f"{tune['runs']} runs" + (f" ({each} for each)" if each else "")
    cost = f"{alike}, {short_count(tune['tokens_sampled'])} sampled tokens, {clock_time(tune['engine_s'])}"
    line = f"{tune['setting']} was chosen for each by a search on other seeds: {cost} of engine time."
    if tune["at_the_edge"]:
        line += f" The best value was the smallest or largest tried for {', '.join(tune['at_the_edge'])}."
    return [line]


def to_the_best(traces: Sequence[Trace]) -> dict[str, Interval]:
    """Return, for each algorithm but the best, its final accuracy minus the best's, paired by seed and problem."""
    scores = final_scores(traces)
    if not scores:
        return {}
    best = max(scores, key=lambda name: mean_of(list(scores[name].values())).mean)
    shared = {name: sorted(seeds.keys() & scores[best].keys()) for name, seeds in scores.items() if name != best}
    return {
        name: contrast_of([[scores[row][seed] for seed in seeds] for row in (name, best)], (1.0, -1.0)).interval()
        for name, seeds in shared.items()
        if seeds
    }


def run_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row per run."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("run", "state", "steps", "before", "after", "length", "sampled tokens", "time"):
        justify = "left" if heading in ("run", "state") else "right"
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading != "run")
    for s in summaries:
        before, after = s["before"] or {}, s["after"] or {}
        table.add_row(
            Text(s["name"]),
            Text(s["state"], style="green" if s["state"] == "done" else "bold red"),
            str(s["step"]),
            *(f"{e['accuracy']:.1%}" if e else "-" for e in (before, after)),
            f"{number(before.get('length'))} → {number(after.get('length'))}",
            short_count(s["tokens_sampled"]),
            clock_time(s["elapsed_s"]),
        )
    return table


def evaluation_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row per evaluated policy, with pass@k where there were several samples and each grader of data."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("policy", overflow="fold")
    more = [key for key in results[0]["metrics"] if key.startswith(("pass@", "accuracy_"))]
    names = [key.removeprefix("accuracy_") for key in more]
    for heading in ("task", "samples", "accuracy", *names, "reward", "length", "ended"):
        table.add_column(heading, justify="left" if heading == "task" else "right", no_wrap=True)
    for label, result in zip(short_paths([result["policy"] for result in results]), results, strict=True):
        metrics = result["metrics"]
        table.add_row(
            Text(label),
            Text(result["task"]),
            f"{result['prompts']} " + ("greedy" if result["greedy"] else f"x {result['samples']}"),
            *(f"{metrics[key]:.1%}" for key in ("accuracy", *more)),
            f"{metrics['reward']:.3f}",
            number(metrics["length"]),
            f"{metrics['finished']:.0%}",
        )
    return table


def short_paths(policies: Sequence[str]) -> list[str]:
    """Return run folders without the folder that all of them are in; what is no path (base) stays."""
    paths = [policy for policy in policies if os.sep in policy]
    shared = os.path.commonpath([os.path.dirname(path) for path in paths]) if len(paths) > 1 else ""
    return [os.path.relpath(policy, shared) if shared and policy in paths else policy for policy in policies]


def plus_minus(one: Interval | None, sign: str = "") -> str:
    """Write an interval of a share in percent, `84.1 ± 3.9`, or `99.2 [96, 100]` where its sides are unlike."""
    if one is None:
        return "-"
    mean = f"{100 * one.mean:{sign}.1f}"
    if one.low is None or one.high is None or one.low == one.high:
        return mean
    if abs((one.high - one.mean) - (one.mean - one.low)) > UNLIKE_SIDES:
        return f"{mean} [{100 * one.low:.0f}, {100 * one.high:.0f}]"
    return f"{mean} ± {100 * (one.high - one.mean):.1f}"


def before_and_after(before: Interval | None, after: Interval | None) -> str:
    """Write the means of two shares in percent, `45.3→97.1`."""
    return "-" if before is None or after is None else f"{100 * before.mean:.1f}→{100 * after.mean:.1f}"


def points(one: Interval | None) -> Text:
    """Write an interval of a difference of shares in percentage points, dim where its sign is not resolved."""
    if one is None:
        return Text("")
    return Text(plus_minus(one, "+"), style={1: "green", -1: "red", 0: "dim"}[one.sign])


def number(value: float | None) -> str:
    """Write a number with one decimal, or a dash for none."""
    return "-" if value is None else f"{value:.1f}"
