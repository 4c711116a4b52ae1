"""Arguments given as objects instead of names: a task, a reward function, a loaded model.

An object is used as it is. Its name goes into the stored settings. `rlzoo train --config` can restore the object from
this name only if it can be imported.
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
"""transformers model -> its backbone: a model's layers can be replaced only once."""


def task_of(
    task: TaskLike | None, reward: RewardLike | None = None, accuracy: RewardLike | None = None
) -> tuple[dict[str, Any] | None, Task | None]:
    """Return a task's settings, and the task itself if it or one of its functions was given as an object.

    Raises:
        UserError: the settings name no task, or it cannot be loaded.
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
    """Return a function's import path, which settings store."""
    return function if isinstance(function, str) else path_of(function)


def _table(task: str | TaskConfig | Mapping[str, Any] | None) -> dict[str, Any]:
    if isinstance(task, TaskConfig):
        return {name: getattr(task, name) for name in task.given()}
    if isinstance(task, Mapping):
        return dict(task)
    return {"name": task or "sort"}


def model_of(model: ModelLike | None) -> tuple[dict[str, Any] | None, Backbone | None]:
    """Return a base model's settings, and the model itself if it was given as an object.

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
            "model must be a name, a folder, a Backbone, or (model, tokenizer) of transformers, got "
            f"{type(model).__name__}"
        )
    return model.config.model_dump(), model


def _backbone_of(model: Any, tokenizer: Any) -> Backbone:
    """Return the backbone of a loaded model, made once. Its linear layers are replaced, its weights are kept."""
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
