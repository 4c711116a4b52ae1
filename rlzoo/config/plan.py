"""The plan of a comparison: its runs and how they will be judged, fixed before the first run.

It is stored as plan.json in the comparison's folder. Verdicts wait until the plan is complete. More seeds extend a plan
and use up a part of the level (`rlzoo.stats.spending`); any other change makes a new analysis, with its date.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Any, Literal

from pydantic import Field

from rlzoo.config.budget import Budget
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.settings import Settings

PLAN = "plan.json"
LEVEL = 0.05


class Question(Settings):
    """A weighted sum of rows: `{"dapo": 1, "grpo": -1}`."""

    label: str
    weights: dict[str, float]


class Plan(Settings):
    """The runs, and the one endpoint that is judged. All other tables have no verdicts."""

    rows: tuple[str, ...]
    controls: tuple[str, ...] = ()
    """Rows that are shown but never judged."""
    task: str
    """Its name; of several, their names joined."""
    tasks: tuple[str, ...] = ()
    """Tasks whose mean accuracy is judged; empty for one task."""
    part_of: int = Field(default=1, ge=1)
    """Number of tasks of a comparison over tasks that this plan is one of: its level is the whole's, divided by it."""
    model: str
    seeds: tuple[int, ...]
    problems: int | Literal["all"]
    """Held-out problems of the last evaluation; fewer where the task has fewer distinct ones. "all": the test split."""
    steps: int
    budget: str | None = None
    endpoint: Literal["tokens", "steps"]
    """Held-out accuracy at equal sampled tokens, or after equally many steps."""
    unlike_costs: bool = False
    """True if equal steps were requested explicitly, although rows may sample different numbers of tokens per step."""
    rate: str
    """How learning rates were chosen, in words: `at lr 0.0007 for all`."""
    margin: float = Field(gt=0)
    level: float = LEVEL
    family: Literal["pairs", "reference", "contrasts"] = "pairs"
    """All pairs; every row against the first; or an ablation's contrasts."""
    contrasts: tuple[Question, ...] = ()

    @classmethod
    def of(cls, config: CompareConfig, contrasts: Collection[Mapping[str, Any]] = (), part_of: int = 1) -> Plan:
        """Return the plan of a comparison, or of an ablation with its contrasts (label and weights).

        Args:
            part_of: number of tasks of the comparison over tasks that this is one of.
        """
        runs = config.runs()
        rows = dict.fromkeys(run.row for run in runs if run.control is None)
        budget = Budget.of(config.train.budget)
        tokens = budget is not None and budget.unit == "tokens"
        rates = {f"{value:g}" for value in config.tuned.values()}
        name = config.tune.field
        if config.tuned:
            rate = f"at each row's best {name}" if len(rates) > 1 else f"at {name} {rates.pop()}, the best of each row"
        else:
            rate = f"at lr {config.optimizer.lr:g} for all"
        if config.tasks and config.tune.values and not config.tuned:
            rate = f"at each row's best {name} on each task"
        if (config.tuned or (config.tasks and config.tune.values)) and config.tune.coupled:
            rate += f", lr {config.optimizer.lr:g} for all"
        return cls(
            rows=tuple(rows),
            controls=tuple(dict.fromkeys(run.row for run in runs if run.control is not None)),
            task=", ".join(config.by_task()),
            tasks=tuple(config.by_task()) if config.tasks else (),
            part_of=part_of,
            model=config.backbone.model,
            seeds=tuple(config.seeds),
            problems=config.evaluation.at_the_ends().prompts or config.evaluation.prompts,
            steps=config.train.steps,
            budget=config.train.budget,
            endpoint=config.endpoint or ("tokens" if tokens else "steps"),
            unlike_costs=config.endpoint == "steps",
            rate=rate,
            margin=config.margin,
            level=LEVEL / part_of,
            family="contrasts" if contrasts else config.family,
            contrasts=tuple(Question(label=one["label"], weights=dict(one["weights"])) for one in contrasts),
        )

    def questions(self) -> list[tuple[str, str]]:
        """Return the pairs that are judged; none in an ablation, whose contrasts are."""
        if self.family == "contrasts":
            return []
        if self.family == "reference":
            return [(row, self.rows[0]) for row in self.rows[1:]]
        return list(combinations(self.rows, 2))

    def missing(self, ended: Collection[tuple[str, int]]) -> int:
        """Return how many planned runs (row, seed) have not ended."""
        planned = {(row, seed) for row in (*self.rows, *self.controls) for seed in self.seeds}
        return len(planned - set(ended))

    def differences(self, other: Plan) -> dict[str, tuple[Any, Any]]:
        """Return field -> (here, there) where two plans differ."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    @property
    def measure(self) -> str:
        """Return what is judged, in words."""
        if self.endpoint == "tokens" and self.budget is not None:
            return f"held-out accuracy at {self.budget.replace('tokens=', '')} sampled tokens"
        if self.endpoint == "tokens":
            return "held-out accuracy at equal sampled tokens"
        return f"held-out accuracy {f'at {self.budget}' if self.budget else f'after {self.steps} steps'}"

    def scope(self, problems: int, seeds: int) -> str:
        """Return what the verdicts hold for, in words."""
        on = f"mean over {len(self.tasks)} tasks: {self.task}" if self.tasks else f"on {self.task}"
        several = f" One of {self.part_of} tasks that share the chance of a wrong verdict." if self.part_of > 1 else ""
        return (
            f"{self.measure[0].upper()}{self.measure[1:]}{',' if self.tasks else ''} {on} ({problems:,} problems), "
            f"model {self.model}, {self.rate}, {seeds} seed{'s' if seeds != 1 else ''}. "
            f"Other tasks, models and rates are not covered.{several}"
        )
