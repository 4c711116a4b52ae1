"""What a study found, as judgements and tables: the final accuracy, the pairs, and accuracies at equal cost."""

from __future__ import annotations

from collections.abc import Mapping

from rlzoo.report.read import Study
from rlzoo.report.tables import Column, Table, Value
from rlzoo.stats import scores
from rlzoo.stats.comparisons import judgements
from rlzoo.stats.intervals import Interval, interval, paired
from rlzoo.stats.scores import Axis, Trace
from rlzoo.stats.verdicts import Judgement, Pair

BUDGETS: tuple[Axis, ...] = ("updates", "tokens_sampled", "tokens_trained", "engine_s")


def judge_runs(study: Study) -> dict[str, Judgement]:
    """Judge the runs that have ended, in every way; see `rlzoo.stats.comparisons`. Empty where none has."""
    traces = [Trace(run.algorithm, run.seed, run.evaluations, run.state == "failed") for run in study.ended]
    return judgements(traces, study.margin)


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


def results(study: Study, judgement: Judgement) -> Table:
    """Return one row per algorithm that has a run that has ended, in the order of the comparison."""
    standings = {standing.algorithm: standing for standing in judgement.standings}
    k = _largest_k(study)
    rows: list[Mapping[str, Value]] = []
    for name in study.algorithms:
        runs = [run for run in study.of(name) if run.summary is not None and run.evaluations]
        if not runs:
            continue
        first = {run.seed: run.evaluations[0] for run in runs}
        last = {run.seed: run.evaluations[-1] for run in runs}
        failed = sum(run.state == "failed" for run in runs)
        before = {seed: record["accuracy"] for seed, record in first.items()}
        standing = standings[name]
        lengths = [sum(e["length"] for e in records.values()) / len(runs) for records in (first, last)]
        costs = {
            key: sum(run.summary[key] for run in runs if run.summary) / len(runs)
            for key in ("updates", "tokens_sampled", "tokens_trained", "engine_s")
        }
        passed = {
            f"pass_{end}": interval([record[f"pass@{k}"] for record in records.values()])
            for end, records in (("before", first), ("after", last))
            if k and all(f"pass@{k}" in record for record in records.values())
        }
        rows.append(
            {
                "algorithm": name,
                "seeds": f"{len(runs)}" + (f" ({failed} failed)" if failed else ""),
                "before": interval(list(before.values())).mean,
                "after": standing.mean,
                "gain": paired({seed: record["accuracy"] for seed, record in last.items()}, before),
                "iqm": standing.iqm,
                "worst": standing.worst,
                "collapse": standing.collapse_rate,
                "length_before": lengths[0],
                "length_after": lengths[1],
                **passed,
                **costs,
            }
        )
    caption = (
        "Held-out accuracy of the runs that have ended, mean and 95% interval over seeds; the gain pairs each seed's "
        "last evaluation with its first. IQM: mean of the middle half of the seeds. Collapsed: failed, below where it "
        f"began, or more than {100 * scores.FALL:.0f} points below its best. Costs are means per run."
    )
    columns = list(RESULTS)
    if k:
        at = [column.key for column in columns].index("length_before")
        columns[at:at] = [Column(f"pass_{end}", f"pass@{k} {end}", "percent") for end in ("before", "after")]
    return Table("results", caption, columns, rows)


def _largest_k(study: Study) -> int:
    """Return the largest k for which a run that has ended has pass@k at its end; 0 for none."""
    last = [run.evaluations[-1] for run in study.ended if run.evaluations]
    return max((int(key.removeprefix("pass@")) for record in last for key in record if key[:5] == "pass@"), default=0)


PAIRS = (
    Column("a", "a"),
    Column("b", "b"),
    Column("verdict", "a is"),
    Column("difference", "difference", "points"),
    Column("improvement", "P(a > b)", "share"),
    Column("p_holm", "p (Holm)", "p"),
    Column("detectable", "detectable", "percent", "points"),
    Column("n", "pairs of seeds", "text"),
)


def pairs(judgement: Judgement) -> Table:
    """Return one row per pair, seen from the one with the higher mean."""
    caption = (
        "Differences of held-out accuracy, paired by seed, with 95% intervals of each by itself; p-values are "
        f"corrected for the number of pairs ({len(judgement.pairs)}). "
        f"Equivalent: closer than {100 * judgement.margin:g} points. "
        "Detectable: the smallest true difference found with probability 0.8."
    )
    return Table("pairs", caption, PAIRS, [_pair(pair) for pair in judgement.pairs])


def _pair(pair: Pair) -> dict[str, Value]:
    return {
        "a": pair.a,
        "b": pair.b,
        "verdict": pair.verdict,
        "difference": pair.difference,
        "improvement": pair.improvement,
        "p_holm": pair.p_holm,
        "detectable": pair.detectable,
        "n": str(pair.n),
    }


def equal_cost(study: Study, judged: Mapping[str, Judgement]) -> Table:
    """Return the accuracy of every algorithm at equal budgets of every kind, and over all of training."""
    budgets = {key: judgement for key, judgement in judged.items() if key != "final"}
    columns = [
        Column("algorithm", ""),
        *(Column(key, one.measure.removeprefix("accuracy "), "percent") for key, one in budgets.items()),
    ]
    found = {key: {s.algorithm: s.mean for s in one.standings} for key, one in budgets.items()}
    rows = [
        {"algorithm": name, **{key: means.get(name) for key, means in found.items()}}
        for name in study.algorithms
        if any(name in means for means in found.values())
    ]
    caption = (
        "Held-out accuracy at the largest budget that every run got to, between evaluations a straight line; over "
        "steps: the mean along the curve. Engine time is a run's share of the time in which it shared batches with "
        "others, and not reproducible."
    )
    return Table("equal_cost", caption, columns, rows)


ABLATION = (
    Column("block", ""),
    Column("label", "change"),
    Column("difference", "difference", "points"),
    Column("verdict", "verdict"),
)


def ablation(study: Study) -> Table:
    """Return one row per contrast of an ablation; none where the study is no ablation."""
    rows = [
        {
            "block": one["block"],
            "label": one["label"],
            "difference": None if one["difference"] is None else Interval(**one["difference"]),
            "verdict": one["verdict"],
        }
        for one in study.contrasts
    ]
    caption = (
        "What each change does to the final held-out accuracy: contrasts taken seed by seed, with 95% intervals over "
        "seeds, each by itself and not corrected for their number."
    )
    return Table("ablation", caption, ABLATION, rows)
