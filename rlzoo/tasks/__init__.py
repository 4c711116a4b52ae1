"""Tasks: problems, graders, reward functions and environments, procedural or over real data.

`load_task("sort:hard")`, `load_task("jsonl:train.jsonl")`. Not here: models, tensors, training.
"""

from __future__ import annotations

from rlzoo.config.task import TaskConfig

# Importing a task's file registers it.
from rlzoo.tasks import add as add
from rlzoo.tasks import countdown as countdown
from rlzoo.tasks import hf as hf
from rlzoo.tasks import jsonl as jsonl
from rlzoo.tasks import needle as needle
from rlzoo.tasks import parity as parity
from rlzoo.tasks import reasoning_gym as reasoning_gym
from rlzoo.tasks import sort as sort
from rlzoo.tasks.base import Scores, Split, Task
from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import load_task, register_task, task_kinds

__all__ = [
    "Problem",
    "ProceduralTask",
    "Scores",
    "Split",
    "Task",
    "TaskConfig",
    "load_task",
    "register_task",
    "task_kinds",
]
