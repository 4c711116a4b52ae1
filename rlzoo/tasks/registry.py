"""Tasks by name. A task's file ends with `register_task(Sort)`; a third-party package names its Task class under the
entry-point group `rlzoo.tasks`.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from rlzoo.config.messages import validate
from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError, nearest
from rlzoo.tasks.base import Task

_TASKS: dict[str, type[Task]] = {}


def register_task(task: type[Task]) -> type[Task]:
    """Make a kind of task known under `task.kind`.

    Raises:
        ValueError: another class has that kind already.
    """
    if _TASKS.setdefault(task.kind, task) is not task:
        raise ValueError(f"a task {task.kind!r} is registered already: {_TASKS[task.kind].__qualname__}")
    return task


def task_kinds() -> dict[str, type[Task]]:
    """Every known kind of task by name, those of installed packages included."""
    for point in entry_points(group="rlzoo.tasks"):
        register_task(point.load())
    return dict(_TASKS)


def load_task(config: TaskConfig | str) -> Task:
    """Build a task from its settings or from a string such as `sort`, `sort:hard`, `jsonl:PATH` or `hf:DATASET`.

    Raises:
        UserError: unknown name, a setting that does not apply to this kind of task, or data that cannot be read.
    """
    if isinstance(config, str):
        config = validate(TaskConfig, {"name": config}, "the task")
    kind, _, argument = config.name.partition(":")
    kinds = task_kinds()
    if kind not in kinds:
        raise UserError(f"unknown task {kind!r}; {nearest(kind, kinds)}")
    task = kinds[kind]
    strangers = sorted(config.given() - task.uses - {"name", "reward", "accuracy"})
    if strangers:
        known = ", ".join(sorted(task.uses)) or "none"
        raise UserError(
            f"task {config.name!r}: {strangers[0]!r} does not apply to {kind} tasks, "
            f"which take: {known}, and like every task: reward, accuracy"
        )
    return task.from_config(config, argument)
