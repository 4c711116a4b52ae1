"""Ablations: a plan's rows run as a comparison, and its contrasts measured. An ablation's folder is a comparison's.

`rlzoo.experiments.ablation_plan` lays out the rows, `rlzoo.experiments.contrasts` judges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.errors import UserError
from rlzoo.experiments import ablation_plan
from rlzoo.experiments.compare import Comparison, compare, read_comparison
from rlzoo.experiments.contrasts import Measured, measure
from rlzoo.store.run_folder import SUMMARY, RunFolder


@dataclass(frozen=True)
class Ablation:
    """A finished ablation: the comparison of its rows and the measured contrasts."""

    comparison: Comparison
    measured: list[Measured]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "folder": str(self.comparison.folder),
            "rows": [row.as_dict() for row in self.comparison.rows],
            "contrasts": [one.as_dict() for one in self.measured],
            "runs": self.comparison.summaries,
        }


def ablate(made: ablation_plan.Plan, config: CompareConfig, folder: Path, **training: Any) -> Ablation:
    """Run the rows of a plan as a comparison, and add the contrasts to its summary.json under `ablation`.

    Args:
        made: rows and contrasts.
        config: settings on one task; its objectives are the plan's rows.
        training: what `rlzoo.experiments.compare.compare` takes: resume, watch, backbone, task.

    Raises:
        UserError: the settings name several tasks, or as `rlzoo.experiments.compare.compare`.
    """
    if config.tasks:
        raise UserError(f"an ablation is on one task, and these settings name {len(config.tasks)}: run one for each")
    comparison = compare(config, folder, contrasts=[one.__dict__ for one in made.contrasts], **training)
    measured = measure(made.contrasts, comparison.traces, Plan.of(config), comparison.judgement)
    summary = RunFolder(folder).read_json(SUMMARY)
    RunFolder(folder).write_json(SUMMARY, summary | {"ablation": [one.as_dict() for one in measured]})
    return Ablation(comparison, measured)


def read_ablation(folder: Path) -> Ablation:
    """Read a finished ablation from its folder.

    Raises:
        UserError: the folder holds no comparison, or one that is no ablation.
    """
    stored = RunFolder(folder).read_json(SUMMARY).get("ablation")
    if stored is None:
        raise UserError(f"{folder} holds a comparison, and no ablation")
    comparison = read_comparison(folder)
    fields = ("block", "label", "weights", "note")
    contrasts = [ablation_plan.Contrast(**{field: one[field] for field in fields}) for one in stored]
    return Ablation(comparison, measure(contrasts, comparison.traces, Plan.of(comparison.config), comparison.judgement))
