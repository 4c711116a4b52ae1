"""Remarks beside the verdicts: diagnostics out of bounds, and rows that differ in several columns.

Each bound is a rule of thumb; the remark says what it may mean for the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rlzoo.report.read import Study
from rlzoo.stats.sentences import listed

CLIPPED = 0.3
"""Share of clipped tokens above which the clip dominates the algorithm."""
LAST = 0.5
"""A diagnostic is averaged over this share of the steps, the last ones."""
BOUNDS = (
    ("clip_fraction", lambda x: x > CLIPPED, "{:.0%} of tokens are clipped: the clip does not fit this setting"),
    ("explained_variance", lambda x: x < 0, "the critic explains {:.2g} of the variance: it is worse than a constant"),
    ("ess", lambda x: x < 0.1, "the ratios leave an effective sample of {:.0%}"),
    ("entropy", lambda x: x < 0.01, "the entropy is {:.2g} nats per token: samples hardly vary"),
    ("silent_groups", lambda x: x >= 0.9, "{:.0%} of groups are silent: hardly any response gives a gradient"),
)
"""Metric, its test for out of bounds, and the remark."""


def out_of_bounds(study: Study) -> list[str]:
    """Return a line per diagnostic that is out of bounds, with the rows that it concerns."""
    lines = []
    for key, out, words in BOUNDS:
        found = {
            name: value for name in study.algorithms if (value := _last(study, name, key)) is not None and out(value)
        }
        lines += [f"{name}: {words.format(value)}." for name, value in found.items()]
    return lines


def _last(study: Study, name: str, key: str) -> float | None:
    """Return a training metric's mean over the last steps of a row's runs; None without a value."""
    values = []
    for run in study.of(name):
        told = np.asarray(run.train.get(key, ()), np.float64)
        told = told[round(len(told) * (1 - LAST)) :]
        values += told[np.isfinite(told)].tolist()
    return float(np.mean(values)) if values else None


def confounded(study: Study) -> list[str]:
    """Return a line on the plan's rows that differ in several columns: a verdict covers all of them together."""
    if study.declared is None or study.declared.plan.contrasts:
        return []
    rows = {name: study.of(name)[0].config["objective"] for name in study.declared.plan.rows if study.of(name)}
    pairs = [pair for pair in combinations(rows, 2) if len(_differing(rows[pair[0]], rows[pair[1]])) > 1]
    told = [f"{a} and {b} differ in {listed(_differing(rows[a], rows[b]))}" for a, b in pairs[:3]]
    if not told:
        return []
    more = f", and {len(pairs) - len(told)} more pairs in several columns too" if len(pairs) > len(told) else ""
    return [
        f"{'; '.join(told)}{more}. A verdict covers these differences together; rlzoo ablate measures them one by one."
    ]


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in a if key != "name" and a.get(key) != b.get(key)]


def remarks(study: Study) -> Sequence[str]:
    """Return all remarks on a study."""
    return [*out_of_bounds(study), *confounded(study)]
