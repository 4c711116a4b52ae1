"""Diagnostics that are out of bounds, in words, and comparisons that change more than one thing at once.

A chart of explained variance at -7 says little to a reader who does not know what to look for. Each bound here is a
rule of thumb, and the remark says what it may mean for the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rlzoo.report.read import Study
from rlzoo.stats.sentences import listed

CLIPPED = 0.3
"""Share of tokens without gradient from which on a clip is most of the algorithm."""
LAST = 0.5
"""Share of the steps, the last ones, that a diagnostic is averaged over."""
BOUNDS = (
    ("clip_fraction", lambda x: x > CLIPPED, "{:.0%} of tokens are clipped: the clip does not fit this setting"),
    ("explained_variance", lambda x: x < 0, "the critic explains {:.2g} of the variance: it is worse than a constant"),
    ("ess", lambda x: x < 0.1, "the ratios leave an effective sample of {:.0%}"),
    ("entropy", lambda x: x < 0.01, "the entropy is {:.2g} nats per token: nothing new is tried"),
    ("silent_groups", lambda x: x >= 0.9, "{:.0%} of groups are silent: there is hardly any signal"),
)
"""Metric, what is out of bounds, and what to say of it."""


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
    """The mean of a training metric over the last steps of a row's runs; None without one."""
    values = []
    for run in study.of(name):
        told = np.asarray(run.train.get(key, ()), np.float64)
        told = told[round(len(told) * (1 - LAST)) :]
        values += told[np.isfinite(told)].tolist()
    return float(np.mean(values)) if values else None


def confounded(study: Study) -> list[str]:
    """Return which of the plan's rows differ in several columns: a verdict is then on all of them at once."""
    if study.declared is None or study.declared.plan.contrasts:
        return []
    rows = {name: study.of(name)[0].config["objective"] for name in study.declared.plan.rows if study.of(name)}
    pairs = [pair for pair in combinations(rows, 2) if len(_differing(rows[pair[0]], rows[pair[1]])) > 1]
    told = [f"{a} and {b} differ in {listed(_differing(rows[a], rows[b]))}" for a, b in pairs[:3]]
    if not told:
        return []
    more = f", and {len(pairs) - len(told)} more pairs in several columns too" if len(pairs) > len(told) else ""
    return [f"{'; '.join(told)}{more}. A verdict is on all of it at once; rlzoo ablate takes it apart."]


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [key for key in a if key != "name" and a.get(key) != b.get(key)]


def remarks(study: Study) -> Sequence[str]:
    """Return everything that a reader of the verdicts should know of the training behind them."""
    return [*out_of_bounds(study), *confounded(study)]
