"""A published result as settings, with its source, its numbers and their tolerances: one TOML file each."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from objectives import get
from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.config.settings import Settings
from rlzoo.config.warmstart import WarmstartConfig
from rlzoo.errors import UserError


class Source(Settings):
    """The source of settings or numbers."""

    what: str
    """Such as `settings`, `numbers`, `grader`."""
    where: str
    """Repository, file and commit, or paper and table."""


class Reference(Settings):
    """One published number, and the metric and step of our records to compare it with.

    A metric is one of evaluations (`accuracy`, `accuracy_flexible`, `length`), or of training steps (`train.reward`).
    """

    step: int = Field(ge=0)
    metric: str = "accuracy"
    since: int | None = Field(default=None, ge=0)
    """The number is the change of the metric since this step; None: the metric itself."""
    relation: Literal["near", "above", "below"] = "near"
    """near: within `tolerance` of `value`. above, below: by more than `tolerance`, where the source says that a metric
    rises or falls, and not by how much."""
    value: float
    tolerance: float = Field(gt=0)
    """Of a number that is near, the edge included. Of a direction: the change that chance alone makes."""

    def inside(self, found: float) -> bool:
        """Whether a number of ours, or its change, reproduces this one."""
        difference = found - self.value
        if self.relation == "near":
            return abs(difference) <= self.tolerance + 1e-12
        return difference > self.tolerance if self.relation == "above" else -difference > self.tolerance

    @property
    def label(self) -> str:
        """The metric, as a change if it is one."""
        return self.metric if self.since is None else f"{self.metric}, change since {self.since}"

    @property
    def wanted(self) -> str:
        """The published number with its tolerance, or the direction, in words."""
        if self.relation == "near":
            return f"{self.value:.4g} ± {self.tolerance:.2g}"
        edge = self.value + (self.tolerance if self.relation == "above" else -self.tolerance)
        return f"{self.relation} {edge:.4g}"


class Published(Settings):
    """One published result and how to run it again."""

    title: str
    device: Literal["cpu", "gpu"]
    cost: str
    """Cost of a whole run, and the hardware."""
    sources: tuple[Source, ...] = Field(min_length=1)
    data: str | None = None
    """Required content of the folder that `--data` names; `{data}` in the settings is that folder."""
    imports: tuple[str, ...] = ()
    """Python files beside this one that register tasks."""
    warmstart: dict[str, Any] | None = None
    """A base model to train from scratch first; `{base}` in the settings is its folder."""
    objective: dict[str, Any]
    """The objective: `start`, a registered one, its changed cells, such as `kl.coef = 0.001`, and its `name`."""
    run: dict[str, Any]
    """Everything else of the run, as in a config file."""
    reference: tuple[Reference, ...] = Field(min_length=1)
    tolerance: str
    """Reason for the tolerances."""
    differs: tuple[str, ...] = ()
    """Known differences from the published run."""
    remark: str | None = None
    """Written after a run of ours: what it showed."""

    @model_validator(mode="after")
    def _uses_what_it_names(self) -> Self:
        text = repr(self.run)
        for name, given in (("data", self.data), ("base", self.warmstart)):
            if (given is not None) != (f"{{{name}}}" in text):
                raise ValueError(f"{name}: the settings have to name {{{name}}} if and only if it is described")
        return self

    def config(self, steps: int | None, **places: str) -> RunConfig:
        """The settings of the run with folders filled in, and fewer steps if asked for.

        Raises:
            UserError: a setting is unknown or wrong.
        """
        changes = dict(self.objective)
        start = changes.pop("start")
        table = _filled(self.run, places) | {"objective": get(start).but(**changes).model_dump()}
        if steps is not None and steps < table["train"]["steps"]:
            if table.get("optimizer", {}).get("schedule", "constant") != "constant":
                raise UserError("the rate of this row falls until its last step, so fewer steps are another schedule")
            table["train"] = {**table.get("train", {}), "steps": min(steps, table["train"]["steps"])}
        return validate(RunConfig, table, self.title)

    def base(self) -> WarmstartConfig | None:
        """The settings of the base model that is trained first, if there is one."""
        return None if self.warmstart is None else validate(WarmstartConfig, dict(self.warmstart), self.title)


def _filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, places) for key, one in value.items()}
    if isinstance(value, str):
        for name, folder in places.items():
            value = value.replace(f"{{{name}}}", folder)
    return value
