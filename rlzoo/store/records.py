"""Models of the files in a folder, one per file, used for writing and for reading.

A model checks the keys that readers rely on, with their ranges; other keys are allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rlzoo.errors import UserError

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class Stored(BaseModel):
    """Base of the models: further keys are let through, numbers are finite."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


class Measured(Stored):
    """Outcome of one evaluation."""

    step: Count
    accuracy: Share | None
    length: Annotated[float, Field(ge=0)] | None = None


class Record(Stored):
    """One line of metrics.jsonl; an evaluation's has an accuracy, a share, a training step's has what it cost."""

    kind: Literal["train", "eval", "test"]
    step: Count
    outcomes: dict[str, Any] | None = None
    accuracy: Share | None = None
    length: Annotated[float, Field(ge=0)] | None = None
    silent_groups: Share | None = None
    finished: Share | None = None
    tokens_sampled: Count = 0
    tokens_trained: Count = 0
    updates: Count = 0
    elapsed_s: Seconds = 0.0
    engine_s: Seconds = 0.0


class Message(Stored):
    """One message of a chat prompt."""

    role: str
    content: str


class Sample(Stored):
    """One line of samples.jsonl."""

    kind: Literal["train", "eval"]
    step: Count
    prompt: str | list[Message]
    completion: str
    answer: Any
    accuracy: Share
    reward: float | None
    length: Count
    finished: bool


class Named(Stored):
    """An objective. Its name is shown as it is; where it is to become a folder, `rlzoo.config.names` checks it."""

    name: str


class Task(Stored):
    """A task's settings."""

    name: str


class Loop(Stored):
    """Settings of the loop that readers need."""

    steps: Annotated[int, Field(ge=1)]


class Config(Stored):
    """config.json of a run: its resolved settings."""

    objective: Named
    seed: Count
    control: str | None = None
    task: Task
    train: Loop


class Environment(Stored):
    """environment.json: what a run was made with."""

    command: list[str] = []
    started: str | None = None
    earlier: list[dict[str, Any]] = []


class Summary(Stored):
    """summary.json of a run: its outcome."""

    name: str
    objective: str
    seed: Count
    state: Literal["done", "failed"]
    failure: str | None = None
    ended: str | None = None
    step: Count
    before: Measured | None = None
    after: Measured | None = None
    tokens_sampled: Count
    updates: Count
    engine_s: Seconds
    elapsed_s: Seconds
    files: dict[str, str] = {}
    """File of an adapter -> its SHA-256."""


class Comparison(Stored):
    """comparison.json: the settings of a comparison."""

    objectives: list[Named]
    seeds: list[Count]
    margin: Annotated[float, Field(gt=0)] = 0.02


class Outcome(Stored):
    """summary.json of a comparison: its table, its verdicts, its runs' summaries."""

    rows: list[dict[str, Any]]
    runs: list[dict[str, Any]]


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def checked(kind: Any, value: Any, where: str | Path) -> Any:
    """Return `value` as it is if it fits a model.

    Raises:
        UserError: what does not fit, with its place in the file.
    """
    adapter = _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        got = "" if first["type"] == "missing" else f", not {repr(first['input'])[:60]}"
        count = f" ({error.error_count()} such errors)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where} is damaged or not of this program: {place}: {message}{got}{count}") from None
    except RecursionError:
        raise UserError(f"{where} is nested too deep") from None
    return value
