"""What a user gives as an object instead of a name: a task, a reward function, a loaded model.

An object is used as it is. Its name goes into the stored settings, so that a folder says what it was made with; whether
the name alone brings the object back (`rlzoo train --config`) depends on whether it can be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from rlzoo.config.model import BackboneConfig
from rlzoo.config.task import TaskConfig, split_tasks
from rlzoo.errors import UserError
from rlzoo.tasks import Task, load_task
from rlzoo.tasks.rewards import path_of

if TYPE_CHECKING:
    from rlzoo.model.backbone import Backbone

RewardLike: TypeAlias = str | Callable[..., Any]
TaskLike: TypeAlias = str | TaskConfig | Mapping[str, Any] | Task
ModelLike: TypeAlias = "str | Path | BackboneConfig | Backbone | tuple[Any, Any]"

_taken: WeakKeyDictionary[Any, Backbone] = WeakKeyDictionary()
"""Model of transformers -> the backbone that was made of it: adapters can be put into a model once."""


def task_of(
    task: TaskLike | None, reward: RewardLike | None = None, accuracy: RewardLike | None = None
) -> tuple[dict[str, Any] | None, Task | None]:
    """Return a task's settings, and the task itself where something of it was given as an object.

    Raises:
        UserError: the task's settings name no task, or it cannot be loaded.
    """
    given = {role: one for role, one in (("reward", reward), ("accuracy", accuracy)) if one is not None}
    named = {role: name_of(one) for role, one in given.items()}
    calls = {role: one for role, one in given.items() if not isinstance(one, str)}
    if task is None and not given:
        return None, None
    if isinstance(task, Task):
        return {"name": task.name, **({"level": task.level} if task.level else {}), **named}, task.scored_by(**given)
    table = _table(task) | named
    if not calls:
        return table, None
    config = TaskConfig.model_validate({key: value for key, value in table.items() if key not in calls})
    return table, load_task(config).scored_by(**calls)


def tasks_of(
    task: TaskLike | Sequence[TaskLike] | None, reward: RewardLike | None = None, accuracy: RewardLike | None = None
) -> tuple[dict[str, Any] | list[dict[str, Any] | None] | None, dict[str, Task]]:
    """Return the settings of a task, or of each of several, and label -> task of those given as objects.

    Raises:
        UserError: see `task_of`.
    """
    task = split_tasks(task) if isinstance(task, str) else task
    if not isinstance(task, (list, tuple)):
        table, loaded = task_of(task, reward, accuracy)
        return table, {} if table is None or loaded is None else {TaskConfig.model_validate(table).label: loaded}
    made = [task_of(one, reward, accuracy) for one in task]
    return [table for table, _ in made], {
        TaskConfig.model_validate(table).label: loaded for table, loaded in made if loaded is not None
    }


def name_of(function: RewardLike) -> str:
    """Return what settings store of a function: its import path."""
    return function if isinstance(function, str) else path_of(function)


def _table(task: str | TaskConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(task, TaskConfig):
        return {name: getattr(task, name) for name in task.given()}
    if isinstance(task, Mapping):
        return dict(task)
    return {"name": task or "sort"}


def model_of(model: ModelLike | None) -> tuple[dict[str, Any] | None, Backbone | None]:
    """Return a base model's settings, and the model itself where it was given as an object.

    Raises:
        UserError: it is neither a name, a backbone, nor a model of transformers with its tokenizer.
    """
    if model is None:
        return None, None
    if isinstance(model, (str, Path)):
        return {"model": str(model)}, None
    if isinstance(model, BackboneConfig):
        return model.model_dump(), None
    from rlzoo.model.backbone import Backbone

    if isinstance(model, tuple) and len(model) == 2:
        model = _backbone_of(*model)
    if not isinstance(model, Backbone):
        raise UserError(
            f"model: a name, a folder, a Backbone, or (model, tokenizer) of transformers, got {type(model).__name__}"
        )
    return model.config.model_dump(), model


def _backbone_of(model: Any, tokenizer: Any) -> Backbone:
    """Make a backbone of a loaded model, once: its linear layers get adapters, its weights stay as they are."""
    import torch

    from rlzoo.model.backbone import Backbone

    if model not in _taken:
        half = next(model.parameters()).dtype == torch.bfloat16
        config = BackboneConfig(
            model=getattr(model.config, "_name_or_path", "") or type(model).__name__,
            precision="bf16" if half else "fp32",
            compute="bf16" if half else "fp32",
            device=str(model.device),
        )
        _taken[model] = Backbone(config, model, tokenizer, model.device)
    return _taken[model]
