"""Results of the search before a comparison: each row's validation accuracy at every value, and over all values.

    over the range(row) = mean over values of the accuracy of the search's runs, seed by seed and problem by problem

A row that wins at its best value may lose at most others. The search's runs are few and use the validation split, so
these verdicts are not the plan's: they are corrected for all pairs of rows and hold for this search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlzoo.experiments.folders import TUNE
from rlzoo.report.read import Study
from rlzoo.report.tables import Column, Table, Value
from rlzoo.stats.estimates import Score, contrast_of, mean_of
from rlzoo.stats.intervals import Interval
from rlzoo.stats.judge import decide
from rlzoo.stats.scores import Trace, final_scores
from rlzoo.store.run_folder import CONFIG, SUMMARY, RunFolder

LEVEL = 0.05


@dataclass(frozen=True)
class Sensitivity:
    """The runs of a search: row -> value -> seed -> score, values in rising order.

    Attributes:
        field: the setting's name, such as `lr`.
        best: row -> the value that the comparison was made with.
    """

    field: str
    scores: Mapping[str, Mapping[float, Mapping[int, Score]]]
    best: Mapping[str, float]
    margin: float

    def means(self, row: str) -> dict[float, Interval]:
        """Return value -> mean accuracy of a row."""
        return {value: mean_of(list(seeds.values())).share() for value, seeds in self.scores[row].items()}

    @property
    def edges(self) -> list[str]:
        """Return the rows whose best value is the smallest or largest tried."""
        return [row for row, best in self.best.items() if best in (min(self.scores[row]), max(self.scores[row]))]

    @property
    def ties(self) -> list[str]:
        """Return the rows whose best two values have the same mean, so that the order of naming decided."""
        found = {row: sorted((one.mean for one in self.means(row).values()), reverse=True) for row in self.scores}
        return [row for row, means in found.items() if len(means) > 1 and np.isclose(means[0], means[1], atol=1e-9)]

    def over_the_range(self, row: str) -> dict[int, Score]:
        """Return seed -> mean score over all values, of the seeds that every value has."""
        tables = list(self.scores[row].values())
        shared = set.intersection(*(set(seeds) for seeds in tables))
        return {seed: np.mean([seeds[seed] for seeds in tables], axis=0) for seed in sorted(shared)}


def read_search(study: Study) -> Sensitivity | None:
    """Read the search beside a comparison; None where there is none, or a row has no ended run at some value."""
    if study.stored is None or not study.stored.get("tuned"):
        return None
    tune = study.stored["tune"]
    section, _, name = tune["setting"].partition(".")
    coupled = section != "optimizer"
    field = tune["setting"] if coupled else name
    traces: dict[float, list[Trace]] = {}
    for path in sorted(study.folder.glob(f"{TUNE}/*/*/*/{SUMMARY}")):
        run = RunFolder(path.parent)
        summary, config = run.read_json(SUMMARY), run.read_json(CONFIG)
        if summary["ended"] == "error" or summary["objective"] not in study.stored["tuned"]:
            continue
        failed = summary["state"] == "failed"
        trace = Trace(summary["objective"], summary["seed"], run.read_metrics(), failed, summary["ended"])
        traces.setdefault((config["objective"] if coupled else config)[section][name], []).append(trace)
    at = {value: final_scores(found) for value, found in sorted(traces.items())}
    rows = [row for row in study.stored["tuned"] if at and all(row in scores for scores in at.values())]
    if len(at) < 2 or len(rows) < len(study.stored["tuned"]):
        return None
    scores = {row: {value: found[row] for value, found in at.items()} for row in rows}
    return Sensitivity(field, scores, study.stored["tuned"], study.stored["margin"])


def curve_table(search: Sensitivity) -> Table:
    """Return one row per algorithm: its accuracy at every value, and the chosen value."""
    values = list(next(iter(search.scores.values())))
    columns = [
        Column("algorithm", ""),
        *(Column(f"{value:g}", f"{search.field} {value:g}", "percent") for value in values),
        Column("best", f"chosen {search.field}"),
    ]
    rows: list[Mapping[str, Value]] = [
        {
            "algorithm": row,
            **{f"{value:g}": one for value, one in search.means(row).items()},
            "best": f"{search.best[row]:g}" + (" (at the edge)" if row in search.edges else ""),
        }
        for row in search.scores
    ]
    caption = (
        "Validation accuracy of the search's runs, failed ones included, with 95% intervals over seeds and problems. "
        "At the edge: the best value was the smallest or largest tried, and a wider search may do better."
    )
    if search.ties:
        caption += f" Two values tie for the best of {', '.join(search.ties)}: the one named first was taken."
    return Table("sensitivity", caption, columns, rows)


def range_table(search: Sensitivity) -> Table:
    """Return one row per pair: the difference of their means over all values, and the verdict."""
    pairs = list(combinations(search.scores, 2))
    found = []
    for pair in pairs:
        a, b = (search.over_the_range(row) for row in pair)
        shared = sorted(a.keys() & b.keys())
        if not shared:
            return Table("over_the_range", "", (), [])
        found.append(contrast_of([[one[seed] for seed in shared] for one in (a, b)], (1.0, -1.0)))
    rows = [
        {
            "a": a,
            "b": b,
            "difference": one.interval(decision.level),
            "verdict": decision.verdict,
        }
        for (a, b), one, decision in zip(pairs, found, decide(found, search.margin, LEVEL), strict=True)
    ]
    columns = (
        Column("a", "a"),
        Column("b", "b"),
        Column("difference", "difference", "points"),
        Column("verdict", "a is"),
    )
    caption = (
        f"Rows over the whole range of {search.field}: the mean over all values tried, paired by seed and problem on "
        f"the validation split, with Holm's correction for {len(pairs)}. The verdicts above are at each row's best."
    )
    return Table("over_the_range", caption, columns, rows)
