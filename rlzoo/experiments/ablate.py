"""Ablations: a plan's rows run as a comparison, and its contrasts measured. An ablation's folder is a comparison's.

y(contrast) = sum over rows of weight(row) y(row),    taken seed by seed; the weights add up to 0
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.experiments.ablation_plan import Contrast, Plan
from rlzoo.experiments.compare import Comparison, compare, read_comparison
from rlzoo.stats.intervals import Interval, interval, verdict
from rlzoo.store.run_folder import SUMMARY, RunFolder


@dataclass(frozen=True)
class Measured:
    """A contrast with its outcome; `difference` is None where no seed finished in all of its rows."""

    contrast: Contrast
    difference: Interval | None

    @property
    def resolved(self) -> bool:
        """Whether these seeds tell the difference's sign."""
        return self.difference is not None and self.difference.sign != 0

    @property
    def verdict(self) -> str:
        """better, worse or inconclusive."""
        return "inconclusive" if self.difference is None else verdict(self.difference)

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        difference = None if self.difference is None else self.difference.as_dict()
        return {**self.contrast.__dict__, "difference": difference, "verdict": self.verdict}


@dataclass(frozen=True)
class Ablation:
    """What an ablation ended with: a comparison of its rows, and the contrasts."""

    comparison: Comparison
    measured: list[Measured]

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "folder": str(self.comparison.folder),
            "rows": [row.as_dict() for row in self.comparison.rows],
            "contrasts": [one.as_dict() for one in self.measured],
            "runs": self.comparison.summaries,
        }


def ablate(made: Plan, config: CompareConfig, folder: Path, **training: Any) -> Ablation:
    """Run the rows of a plan as a comparison, and add the contrasts to its summary.json under `ablation`.

    Args:
        config: whose objectives are the plan's rows.
        training: what `rlzoo.experiments.compare.compare` takes: resume, watch, backbone, task.

    Raises:
        UserError: see `rlzoo.experiments.compare.compare`.
    """
    comparison = compare(config, folder, **training)
    measured = measure(made.contrasts, comparison.summaries)
    summary = RunFolder(folder).read_json(SUMMARY)
    RunFolder(folder).write_json(SUMMARY, summary | {"ablation": [one.as_dict() for one in measured]})
    return Ablation(comparison, measured)


def read_ablation(folder: Path) -> Ablation:
    """Read an ablation that has ended from its folder.

    Raises:
        UserError: the folder holds no comparison, or one that is no ablation.
    """
    stored = RunFolder(folder).read_json(SUMMARY).get("ablation")
    if stored is None:
        raise UserError(f"{folder} holds a comparison, and no ablation")
    comparison = read_comparison(folder)
    fields = ("block", "label", "weights", "note")
    contrasts = [Contrast(**{field: one[field] for field in fields}) for one in stored]
    return Ablation(comparison, measure(contrasts, comparison.summaries))


def measure(contrasts: Iterable[Contrast], summaries: Iterable[Mapping[str, Any]]) -> list[Measured]:
    """Take contrasts of final accuracies, over the seeds that finished in all rows of the contrast."""
    after: dict[str, dict[int, float]] = {}
    for s in summaries:
        if s["state"] == "done":
            after.setdefault(s["objective"], {})[s["seed"]] = s["after"]["accuracy"]
    result: list[Measured] = []
    for contrast in contrasts:
        rows = {name: after.get(name, {}) for name in contrast.weights}
        seeds = sorted(set[int].intersection(*(set(row) for row in rows.values())))
        values = [math.fsum(w * rows[name][seed] for name, w in contrast.weights.items()) for seed in seeds]
        result.append(Measured(contrast, interval(values) if values else None))
    return result
