"""Comparisons that no training made: accuracies of every seed on every problem, by a known model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def crossed_normal(
    rng: np.random.Generator, trials: int, n: int, m: int, seeds: float, problems: float, rest: float
) -> Array:
    """Differences [trials, n, m] with mean 0: standard deviations of seeds, of problems, and of what is left."""
    return (
        seeds * rng.standard_normal((trials, n, 1))
        + problems * rng.standard_normal((trials, 1, m))
        + rest * rng.standard_normal((trials, n, m))
    )


def solved(rng: np.random.Generator, trials: int, n: int, m: int, level: float, seeds: float, problems: float) -> Array:
    """Differences [trials, n, m] of two algorithms that are equally good on the task, of right and wrong.

    Logits: a level, a difficulty of each problem, what one algorithm is better at (`problems`), and what a seed brings
    (`seeds`). The sampling noise of an evaluation is the same for all runs, as in a real comparison.
    """
    difficulty = level + rng.normal(0, 1.5, (trials, 1, m))
    better_at = rng.normal(0, problems, (trials, 1, m))
    noise = np.log(1 / rng.random((trials, 1, m)) - 1)
    right = []
    for sign in (0.5, -0.5):
        logit = difficulty + sign * better_at + rng.normal(0, seeds, (trials, n, 1))
        right.append(logit + rng.normal(0, 0.5, (trials, n, m)) > noise)
    return right[0].astype(np.float64) - right[1]


def runs(rng: np.random.Generator, n: int, difficulty: Array, level: float, seeds: float = 0.1) -> dict[int, Array]:
    """One algorithm's outcomes on problems of given difficulties, seed -> [m]."""
    noise = np.log(1 / np.random.default_rng(0).random(len(difficulty)) - 1)
    return {
        seed: (level + difficulty + rng.normal(0, seeds) + rng.normal(0, 0.4, len(difficulty)) > noise).astype(float)
        for seed in range(n)
    }
