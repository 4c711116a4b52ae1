"""Planning from a finished comparison: which differences more seeds and problems would detect (`rlzoo power`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError
from rlzoo.experiments.compare import read_comparison
from rlzoo.stats.estimates import contrast_of
from rlzoo.stats.power import detectable, pooled
from rlzoo.stats.scores import final_scores

SEEDS = (4, 8, 16, 32)
PROBLEMS = (256, 1024, 4096)


def power_table(folder: Path, seeds: Sequence[int] = SEEDS, problems: Sequence[int] = PROBLEMS) -> dict[str, Any]:
    """Return the smallest true differences that designs detect with probability 0.8, by a comparison's variances.

    Returns JSON types: `questions` and `level` of the family, `shares` of the squared error due to seeds, problems and
    both, and `detectable`: number of seeds -> number of problems -> difference, as a share.

    Raises:
        UserError: the folder holds no comparison, or none of its pairs has two seeds and the outcomes of problems.
    """
    comparison = read_comparison(folder)
    scores = final_scores(comparison.traces)
    pairs = [(scores[a], scores[b]) for a, b in combinations(scores, 2)]
    shared = [(a, b, sorted(a.keys() & b.keys())) for a, b in pairs]
    found = [contrast_of([[row[s] for s in of] for row in (a, b)], (1.0, -1.0)) for a, b, of in shared if len(of) > 1]
    known = [one for one in found if one.problems is not None]
    if not known:
        raise UserError(
            f"{folder}: no two rows share two seeds with the outcome of each problem, so nothing is known "
            "of what varies. Run a pilot, such as 4 seeds of two rows"
        )
    mean = pooled(known)
    level = comparison.judgement.level / max(len(known), 1)
    return {
        "questions": len(known),
        "level": level,
        "shares": mean.shares,
        "detectable": {n: {m: detectable(mean, n, m, level) for m in problems} for n in seeds},
    }
