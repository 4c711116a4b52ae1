"""Settings of a comparison: objectives side by side, every objective with every seed."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from objectives import Objective, get, names
from rlzoo.config.limits import check_seeds
from rlzoo.config.run import (
    OTHER_SEEDS,
    OWN,
    TUNABLE,
    AnyObjective,
    Control,
    OptimizerSettings,
    RunConfig,
    SharedConfig,
    TrainSettings,
)
from rlzoo.config.settings import Settings
from rlzoo.config.task import TaskConfig, task_folder

COUPLED = ("surrogate", "kl", "entropy", "value")
"""Columns of an objective whose constants a search may choose for each row."""
MARGIN = 0.02
"""Default equivalence margin: accuracies shown to be closer than this are equivalent."""


class TuneSettings(Settings):
    """A search that is the same for every objective of a comparison; see `rlzoo.experiments.tune`."""

    setting: str = "optimizer.lr"
    """A number that is chosen for each objective: of the optimizer's (lr is short for optimizer.lr), or one that is
    coupled to an algorithm, such as surrogate.high or kl.coef, which every objective must have then."""
    values: tuple[float, ...] = ()
    """Values to choose from; none: no search."""
    seeds: int = Field(default=2, ge=1)
    """Number of seeds of the search; they differ from the comparison's seeds."""

    @field_validator("setting")
    @classmethod
    def _can_be_tuned(cls, value: str) -> str:
        if value.partition(".")[0] in COUPLED:
            return value
        field = value.removeprefix("optimizer.")
        if field not in TUNABLE:
            raise ValueError(
                f"{value!r} cannot be tuned, only {', '.join(f'optimizer.{name}' for name in TUNABLE)}, and fields of "
                f"{', '.join(COUPLED)} such as surrogate.high: with other settings apart the objectives would not be "
                "compared on equal terms"
            )
        return f"optimizer.{field}"

    @model_validator(mode="after")
    def _is_a_search(self) -> Self:
        if len(self.values) == 1 or len(set(self.values)) < len(self.values):
            raise ValueError(f"values: name two or more to choose from, each once, got {list(self.values)}")
        if not self.values and self.seeds != TuneSettings.model_fields["seeds"].default:
            raise ValueError("seeds of a search without values: name the values too, --tune lr=3e-4,7e-4,2e-3")
        return self

    @property
    def field(self) -> str:
        """The setting's name; of the optimizer's without its section."""
        return self.setting.removeprefix("optimizer.")

    @property
    def coupled(self) -> bool:
        """Whether the setting is a field of the objectives' parts."""
        return not self.setting.startswith("optimizer.")

    def of(self, run: RunConfig) -> float:
        """Return a run's value of the setting."""
        section, _, field = self.setting.partition(".")
        return getattr(getattr(run.objective if self.coupled else run, section), field)


class CompareConfig(SharedConfig):
    """Objectives side by side: every objective with every seed, on one task or on each of several."""

    tasks: tuple[TaskConfig, ...] = ()
    """Several tasks, names or tables; `task` may be such a list too. Every objective trains with every seed on each of
    them, and their mean is judged. With one task this is empty."""
    objectives: tuple[AnyObjective, ...] = ()
    """Names from rlzoo list, or ablations of these; "all": every objective that learns from rewards of the policy's own
    samples and accepts any group size. At least one."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds; a single number n means 0 .. n-1."""
    controls: tuple[Control, ...] = ()
    """Control rows of the first objective: same (on other seeds), random_reward, frozen. They show the comparison's
    result when there is no difference, no signal, or no training."""
    tune: TuneSettings = Field(default_factory=TuneSettings)
    tuned: dict[str, float] = Field(default_factory=dict)
    """Objective -> its value of tune.setting, chosen by the search; if given, no search is run."""
    margin: float = Field(default=MARGIN, gt=0, lt=1)
    """Accuracies shown to be closer than this are called equivalent. Part of the plan: a later change is dated."""
    endpoint: Literal["tokens", "steps"] | None = None
    """The endpoint: accuracy at equal sampled tokens, or after equally many steps at any cost. None: tokens where
    train.budget is in tokens; else steps, and rows that sampled unlike amounts have no verdict."""
    family: Literal["pairs", "reference"] = "pairs"
    """Which questions share the chance of a wrong verdict: all pairs, or every row against the first one."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """Take a list of tasks from `task` or `tasks`. Of several the first is `task` too; one alone is `task` only."""
        if not isinstance(value, dict):
            return value
        given = [value[key] for key in ("task", "tasks") if isinstance(value.get(key), (list, tuple)) and value[key]]
        if not given:
            return value
        if len(given) > 1:
            raise ValueError("task and tasks are both lists of tasks: leave one of them out")
        (tasks,) = given
        rest = {key: item for key, item in value.items() if key not in ("task", "tasks")}
        alone = value.get("task")
        if alone is not None and not isinstance(alone, (list, tuple)):
            first = TaskConfig.model_validate(tasks[0])
            if TaskConfig.model_validate(alone) != first:
                raise ValueError(f"task is {alone!r} and tasks is a list that begins with {first.label!r}: name one")
        return {**rest, "task": tasks[0], "tasks": list(tasks) if len(tasks) > 1 else []}

    @field_validator("objectives", mode="before")
    @classmethod
    def _all(cls, value: object) -> object:
        if value not in ("all", ["all"], ("all",)):
            return value
        found = [get(name) for name in names()]
        taught = {"demonstration", "teacher_logp"}
        return [one.name for one in found if one.group_size is None and not one.needs & taught]

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        if not isinstance(value, int):
            return value
        check_seeds(value)
        return tuple(range(value))

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        listed = [objective.name for objective in self.objectives]
        if not listed:
            raise ValueError("objectives: name at least one, or all for all of rlzoo list")
        folders = [task_folder(task.label) for task in self.tasks]
        if len(set(folders)) < len(folders):
            raise ValueError(f"tasks must each be named once: {', '.join(task.label for task in self.tasks)}")
        if not self.seeds:
            raise ValueError("seeds: name at least one, or give a number of them")
        if len(set(listed)) < len(listed) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"objectives and seeds must each be named once: {listed}, seeds {list(self.seeds)}")
        for setting, need in OWN.items():
            value = getattr(self.train, setting)
            idle = value != TrainSettings.model_fields[setting].default
            if idle and not any(need in objective.needs for objective in self.objectives):
                who = {"value": "has a critic", "teacher_logp": "learns from a teacher"}[need]
                said = "is set" if isinstance(value, BaseModel) else f"= {value!r}"
                raise ValueError(f"train.{setting} {said}, but none of {listed} {who}: leave it out")
        if len(set(self.controls)) < len(self.controls):
            raise ValueError(f"controls must each be named once: {', '.join(self.controls)}")
        if "same" in self.controls and max(self.seeds) >= OTHER_SEEDS:
            raise ValueError(f"seeds from {OTHER_SEEDS} on belong to the control 'same': choose smaller ones")
        if self.tune.values and max(self.seeds) >= OTHER_SEEDS:
            raise ValueError(f"seeds from {OTHER_SEEDS} on belong to controls and searches: choose smaller ones")
        if self.tuned and set(self.tuned) != set(listed):
            raise ValueError(f"tuned: one value for each of {listed}, got {sorted(self.tuned)}")
        for value in (*self.tune.values, *self.tuned.values()):
            self._optimizer(value)
            for objective in self.objectives:
                self._tuned_objective(objective, value)
        self.runs()
        _refuse_identical(self.objectives, self.train.updates_per_rollout)
        return self

    def by_task(self) -> dict[str, CompareConfig]:
        """Label of a task -> the comparison on it alone; a comparison on one task is its own."""
        if not self.tasks:
            return {self.task.label: self}
        return {task.label: self.model_copy(update={"task": task, "tasks": ()}) for task in self.tasks}

    def shared(self) -> dict[str, Any]:
        """What every run of the comparison stores alike, as JSON types: not objective, seed and what only some have."""
        return self.shared_part(self.runs()[0].stored())

    def shared_part(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Of a run's stored configuration, what all runs of this comparison have in common."""
        table = shared_part(stored)
        if (self.tuned or self.tune.values) and not self.tune.coupled:
            del table["optimizer"][self.tune.field]
        return table

    def _optimizer(self, value: float | None) -> OptimizerSettings:
        """The optimizer's settings with another value of the tuned one."""
        if value is None or self.tune.coupled:
            return self.optimizer
        return OptimizerSettings.model_validate(self.optimizer.model_dump() | {self.tune.field: value})

    def _tuned_objective(self, objective: Objective, value: float | None) -> Objective:
        """The objective with another value of the tuned setting, under its own name.

        Raises:
            ValueError: it has no such field, or not with such a value.
        """
        if value is None or not self.tune.coupled:
            return objective
        try:
            return objective.but(**{self.tune.setting: value, "name": objective.name})
        except ValueError as error:
            raise ValueError(f"tune.setting {self.tune.setting!r} does not fit {objective.name}: {error}") from error

    def runs(self) -> list[RunConfig]:
        """The runs on `task`, row by row, controls last. Settings of critic and teacher go to the
        objectives that have one."""
        rows = [(objective, None) for objective in self.objectives]
        controls = [(self.objectives[0], control) for control in self.controls]
        common = {name: getattr(self, name) for name in SharedConfig.model_fields}
        settings = {o: common | {"optimizer": self._optimizer(self.tuned.get(o.name))} for o in self.objectives}
        return [
            RunConfig(
                objective=self._tuned_objective(objective, self.tuned.get(objective.name)),
                seed=seed,
                control=control,
                **_without(settings[objective], objective.needs),
            )
            for objective, control in [*rows, *controls]
            for seed in self.seeds
        ]


def _without(shared: dict[str, Any], needs: frozenset[str]) -> dict[str, Any]:
    """The settings for an objective with these needs: those that belong to others are at their defaults."""
    idle = {setting: TrainSettings.model_fields[setting].default for setting, need in OWN.items() if need not in needs}
    critic_lr = {} if "value" in needs else {"critic_lr": None}
    return shared | {
        "train": shared["train"].model_copy(update=idle),
        "optimizer": shared["optimizer"].model_copy(update=critic_lr),
    }


def shared_part(stored: dict[str, Any]) -> dict[str, Any]:
    """Of a run's stored configuration, what all runs of its comparison have in common."""
    table = {key: value for key, value in stored.items() if key in SharedConfig.model_fields}
    for section, own in (("train", OWN.keys()), ("optimizer", {"critic_lr"})):
        table[section] = {key: value for key, value in table[section].items() if key not in own}
    return table


def _refuse_identical(objectives: tuple[Objective, ...], updates_per_rollout: int) -> None:
    """Refuse rows that differ in name only or, at one update per rollout, only in what acts on ratios other than 1."""
    same: dict[Objective, str] = {}
    same_at_one: dict[Objective, str] = {}
    for named in objectives:
        # Every run has the group size that it asks for, so asking makes no difference any more.
        objective = named if named.group_size is None else named.but(**{"name": named.name, "advantage.size": None})
        twin = same.setdefault(objective.but(name="unnamed"), objective.name)
        if twin != objective.name:
            raise ValueError(f"{twin} and {objective.name} are one algorithm under two names: leave one out")
        twin = same_at_one.setdefault(objective.at_ratio_one(), objective.name)
        if updates_per_rollout == 1 and twin != objective.name:
            raise ValueError(
                f"{twin} and {objective.name} are one algorithm under this schedule: with one update per rollout every "
                "ratio is 1, and ratio, clip and value clip do nothing. Set train.minibatches or train.epochs above 1"
            )
