"""Results of a study as a judgement and tables: final accuracy, pairs, accuracy at equal cost, numbers of curves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlzoo.report.read import Study
from rlzoo.report.tables import Column, Table, Value
from rlzoo.stats.comparisons import costs, lost, primary
from rlzoo.stats.estimates import mean_of
from rlzoo.stats.intervals import Interval, interval
from rlzoo.stats.judge import standing
from rlzoo.stats.scores import AXES, FALL, final_scores, first_scores, gains
from rlzoo.stats.verdicts import Judgement, Pair

LABELS: Mapping[str, str] = {
    "step": AXES["step"],
    "tokens_sampled": AXES["tokens_sampled"],
    "prompts_sampled": "sampled problems",
    "updates": AXES["updates"],
    "tokens_trained": AXES["tokens_trained"],
    "engine_s": "engine time",
}
"""What learning curves are drawn over, with its label. Time is shown and never judged."""


def judge_runs(study: Study) -> Judgement:
    """Judge the runs that have ended by the folder's plan; without a plan there are intervals and no verdicts."""
    plan, look = (study.declared.plan, study.declared.look) if study.declared else (None, 1)
    return primary([run.trace for run in study.ended], plan, look)


RESULTS = (
    Column("algorithm", ""),
    Column("seeds", "seeds"),
    Column("before", "before", "percent"),
    Column("after", "after", "percent"),
    Column("gain", "gain", "points"),
    Column("iqm", "IQM", "percent"),
    Column("worst", "worst seed", "percent"),
    Column("collapse", "collapsed", "percent"),
    Column("length_before", "length before", "number", "tokens"),
    Column("length_after", "length after", "number", "tokens"),
    Column("updates", "updates", "count"),
    Column("tokens_sampled", "sampled", "count", "tokens"),
    Column("tokens_trained", "trained", "count", "tokens"),
    Column("engine_s", "engine time", "seconds"),
)


def results(study: Study) -> Table:
    """Return one row per algorithm with a run that has ended, in the order of the comparison."""
    traces = [run.trace for run in study.ended if run.trace.tests]
    after, before, gain, collapses = final_scores(traces), first_scores(traces), gains(traces), lost(traces)
    k = _largest_k(study)
    rows: list[Mapping[str, Value]] = []
    for name in study.algorithms:
        runs = [run for run in study.of(name) if run.summary is not None and run.trace.tests]
        if not runs:
            continue
        ends = [[run.trace.tests[0] for run in runs], [run.trace.tests[-1] for run in runs]]
        failed = sum(run.state == "failed" for run in runs)
        one = standing(name, after[name], lost=collapses.get(name, ()))
        lengths = [sum(record["length"] for record in records) / len(runs) for records in ends]
        costs = {
            key: sum(run.summary[key] for run in runs if run.summary) / len(runs)
            for key in ("updates", "tokens_sampled", "tokens_trained", "engine_s")
        }
        passed = {
            f"pass_{end}": interval([record[f"pass@{k}"] for record in records])
            for end, records in zip(("before", "after"), ends, strict=True)
            if k and all(f"pass@{k}" in record for record in records)
        }
        rows.append(
            {
                "algorithm": name,
                "seeds": f"{len(runs)}" + (f" ({failed} failed)" if failed else ""),
                "before": mean_of(list(before[name].values())).mean,
                "after": one.mean,
                "gain": gain[name].interval(),
                "iqm": one.iqm,
                "worst": one.worst,
                "collapse": one.collapse_rate,
                "length_before": lengths[0],
                "length_after": lengths[1],
                **passed,
                **costs,
            }
        )
    caption = (
        "Held-out accuracy of the runs that have ended, failed ones included, mean and 95% interval over seeds and "
        "problems; the gain pairs each seed's last evaluation with its first. IQM: mean of the middle half of the "
        f"seeds. Collapsed: failed, below where it began, or more than {100 * FALL:.0f} points below its best, by more "
        "than sampling explains. Costs are means per run."
    )
    columns = list(RESULTS)
    if k:
        at = [column.key for column in columns].index("length_before")
        columns[at:at] = [Column(f"pass_{end}", f"pass@{k} {end}", "percent") for end in ("before", "after")]
    return Table("results", caption, columns, rows)


def _largest_k(study: Study) -> int:
    """Return the largest k for which a run that has ended has pass@k at its end; 0 for none."""
    last = [run.trace.tests[-1] for run in study.ended if run.trace.tests]
    return max((int(key.removeprefix("pass@")) for record in last for key in record if key[:5] == "pass@"), default=0)


PAIRS = (
    Column("a", "a"),
    Column("b", "b"),
    Column("verdict", "a is"),
    Column("difference", "difference", "points"),
    Column("errors", "errors of b / a", "number"),
    Column("improvement", "P(a > b)", "share"),
    Column("p_holm", "p (Holm)", "p"),
    Column("detectable", "detectable", "percent", "points"),
    Column("of_seeds", "error from seeds", "percent"),
    Column("of_problems", "from problems", "percent"),
    Column("correlation", "correlation", "share"),
    Column("n", "pairs of seeds", "text"),
)


def pairs(judgement: Judgement) -> Table:
    """Return one row per pair, the higher mean first; empty columns are left out."""
    caption = (
        "Differences of held-out accuracy, paired by seed and problem. Each interval has the level at which Holm's "
        f"procedure tests its pair among {len(judgement.pairs)}, so it agrees with the verdict. "
        f"Equivalent: closer than {100 * judgement.margin:g} points; where both rows are above 90%, the same share of "
        "their errors. Detectable: the smallest true difference found with probability 0.8, roughly. Error from seeds, "
        "from problems: shares of the squared standard error. Correlation of the two rows over seeds: pairing pays "
        "above 0.4 with four seeds, above 0.2 with eight."
    )
    rows = [_pair(pair) for pair in judgement.pairs]
    columns = [column for column in PAIRS if any(row[column.key] is not None for row in rows)]
    return Table("pairs", caption, columns, rows)


def _pair(pair: Pair) -> dict[str, Value]:
    shares = pair.found.shares or {}
    return {
        "a": pair.a,
        "b": pair.b,
        "verdict": pair.told,
        "difference": pair.difference,
        "errors": pair.errors,
        "improvement": pair.improvement,
        "p_holm": pair.p_holm,
        "detectable": pair.detectable,
        "of_seeds": shares.get("seeds"),
        "of_problems": shares.get("problems"),
        "correlation": pair.correlation,
        "n": str(pair.n),
    }


def equal_cost(study: Study) -> Table:
    """Return every algorithm's accuracy at equal budgets of each kind, and its mean over training."""
    found = costs([run.trace for run in study.ended])
    columns = [
        Column("algorithm", ""),
        *(Column(key, one.measure.removeprefix("accuracy "), "percent") for key, one in found.items()),
    ]
    rows = [
        {"algorithm": name, **{key: one.means.get(name) for key, one in found.items()}}
        for name in study.algorithms
        if any(name in one.means for one in found.values())
    ]
    caption = (
        "Validation accuracy at the largest budget that every run reached, interpolated between evaluations; over "
        "steps: the mean along the curve. These numbers support no verdict: they depend on how often runs were "
        "evaluated and on the other rows. Engine time is a run's share of batches that runs share, and does not repeat."
    )
    return Table("equal_cost", caption, columns, rows)


MOMENTS = 12
"""Evaluations that the table of a curve has at most: the first, the last, and some between."""


def curve_values(study: Study) -> Table:
    """Return validation accuracy by training step, a column per algorithm: the numbers behind the learning curves."""
    found: dict[int, dict[str, list[float]]] = {}
    for run in study.runs:
        for record in run.evaluations:
            found.setdefault(record["step"], {}).setdefault(run.algorithm, []).append(record["accuracy"])
    steps, names = sorted(found), study.algorithms
    kept = sorted({steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(MOMENTS, len(steps)))})
    rows: list[Mapping[str, Value]] = [
        {"step": float(step), **{name: interval(found[step][name]) if name in found[step] else None for name in names}}
        for step in kept
    ]
    columns = [Column("step", "step", "count"), *(Column(name, name, "percent") for name in names)]
    caption = "Validation accuracy while training, mean and 95% t interval over the seeds that were evaluated there."
    return Table("curve", caption, columns, rows)


ABLATION = (
    Column("block", ""),
    Column("label", "change"),
    Column("difference", "difference", "points"),
    Column("verdict", "verdict"),
)


def ablation(study: Study) -> Table:
    """Return one row per contrast of an ablation; no row for other studies."""
    rows = [
        {
            "block": one["block"],
            "label": one["label"],
            "difference": None if one["difference"] is None else Interval(**one["difference"]),
            "verdict": one["verdict"] or f"no verdict: {(one.get('refusal') or {}).get('reason', 'unknown')}",
        }
        for one in study.contrasts
    ]
    caption = (
        "What each change does to the final held-out accuracy: contrasts taken seed by seed and problem by problem. "
        "Intervals and verdicts allow for the number of contrasts."
    )
    return Table("ablation", caption, ABLATION, rows)
