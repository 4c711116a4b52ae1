"""From scores to estimates: of a row's mean, and of a weighted sum of rows, seed by seed and problem by problem.

Runs with the same seed saw the same prompts and the same noise, and all runs are scored on the same problems. A
difference leaves out what they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rlzoo.stats.crossed import UNKNOWN_PROBLEMS, Estimate, estimate, estimate_scores

Array = NDArray[np.float64]
Score = float | Array
"""Of one run: a number, or the accuracy on each problem, [problems]."""
Scores = Mapping[str, Mapping[int, Score]]
"""algorithm -> seed -> score; higher is better."""


def mean_of(scores: Sequence[Score], problems: int = UNKNOWN_PROBLEMS, strata: Sequence[int] | None = None) -> Estimate:
    """Estimate a row's mean accuracy from one score per seed: over seeds and problems where all have the latter.

    Args:
        problems: behind a score that is a single number.
        strata: number of problems of each task, where scores are over several; see `crossed.estimate`.
    """
    table = _table(scores)
    if table is not None:
        return estimate(table, strata)
    values = [float(np.mean(score)) for score in scores]
    return estimate_scores(values, sampling_variance(float(np.mean(values)), problems))


def contrast_of(
    rows: Sequence[Sequence[Score]],
    weights: Sequence[float],
    problems: int = UNKNOWN_PROBLEMS,
    strata: Sequence[int] | None = None,
) -> Estimate:
    """Estimate a weighted sum of rows, such as the difference of two.

    Args:
        rows: [rows], each with one score per seed, in the same order of seeds.
        weights: [rows].
        problems, strata: see `mean_of`.
    """
    tables = [_table(row) for row in rows]
    known = [table for table in tables if table is not None]
    if len(known) == len(rows) and len({table.shape for table in known}) == 1:
        return estimate(sum(w * table for w, table in zip(weights, known, strict=True)), strata)
    means = np.array([[float(np.mean(score)) for score in row] for row in rows])
    smallest = sum(
        w * w * sampling_variance(float(row.mean()), problems) for w, row in zip(weights, means, strict=True)
    )
    return estimate_scores(list(np.asarray(weights) @ means), smallest)


def sampling_variance(mean: float, problems: int) -> float:
    """Return the variance of a share of so many problems; one right and one wrong are added, so it is never 0."""
    p = (min(max(mean, 0.0), 1.0) * problems + 1) / (problems + 2)
    return p * (1 - p) / problems


def _table(scores: Sequence[Score]) -> Array | None:
    """Return the scores as [seeds, problems]; None where a score is a number, or runs have different problems."""
    if any(np.ndim(score) == 0 for score in scores) or len({np.shape(score) for score in scores}) != 1:
        return None
    table = np.stack([np.asarray(score, np.float64) for score in scores])
    return table if table.shape[1] > 1 else None
