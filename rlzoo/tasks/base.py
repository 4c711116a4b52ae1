"""A task: problems that are a pure function of (split, index), and a verdict on completions.

    problem(split, index) -> Problem        score(problems, completions) -> Scores

Accuracy and reward are separate. Accuracy is the task's own verdict (0 or 1, or a fraction for graded data);
evaluations report it and dynamic sampling uses it. Training maximizes the reward, which equals the accuracy unless a
reward function is named. There is no small format reward by default: if the advantage is divided by the group's std, a
tiny difference between two wrong answers would count as much as right against wrong.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Literal, Self

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks.environment import Environment, SingleTurn
from rlzoo.tasks.problem import Problem
from rlzoo.tasks.rewards import RewardFunction, total

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Scores:
    """One entry per completion. A reward of None means that the response cannot be scored; its group ignores it.

    Attributes:
        named: the rewards whose sum is `reward`, by name, if a reward function returns several; None for one reward.
    """

    reward: list[float | None]
    accuracy: list[float]
    named: dict[str, list[float | None]] | None = None


class Task(ABC):
    """A source of problems and verdicts. A subclass defines `from_config`, `size`, `problem` and `grade`.

    `reward` and `accuracy` are import paths of functions (see `rlzoo.tasks.rewards`) that replace `grade`.
    """

    kind: ClassVar[str]
    """The name before the colon: `sort` in `sort:hard`, `jsonl` in `jsonl:data.jsonl`."""
    uses: ClassVar[frozenset[str]] = frozenset()
    """The fields of TaskConfig that this kind reads, apart from name, reward and accuracy. All others are rejected."""
    at_hand: ClassVar[bool] = False
    """True if problems are stored rows, not generated: a trainer checks all of them before it starts."""

    several_turns: ClassVar[bool] = False
    """True if `environment` may answer more than one response; otherwise all responses are scored at once."""

    def __init__(self, name: str, level: str | None = None, reward: str | None = None, accuracy: str | None = None):
        self.name = name
        self.level = level
        self._reward = RewardFunction.load(reward, "reward") if reward else None
        self._accuracy = RewardFunction.load(accuracy, "accuracy") if accuracy else None

    @classmethod
    @abstractmethod
    def from_config(cls, config: TaskConfig, argument: str) -> Task:
        """Build the task; `argument` is the part of the name after the colon, or ''."""

    @abstractmethod
    def size(self, split: Split) -> int | None:
        """Number of problems in the split; None means that every index is valid."""

    @abstractmethod
    def problem(self, split: Split, index: int) -> Problem:
        """The problem at `index`, always the same one for the same arguments.

        Raises:
            IndexError: `index` is outside a finite split.
        """

    def doubtful(self, split: Split, most_bytes: int) -> Sequence[int]:
        """Indices of problems whose prompts may be empty or longer than `most_bytes`; none if generated."""
        return range(self.size(split) or 0) if self.at_hand else ()

    def identity(self, problem: Problem) -> str:
        """Return a key that two problems share if one reveals the answer of the other; here the prompt."""
        return repr(problem.prompt)

    def environment(self, problem: Problem) -> Environment:
        """Return a new environment for one trajectory on the problem."""
        return SingleTurn(self.score, problem)

    @abstractmethod
    def grade(self, problem: Problem, completion: str) -> float:
        """The task's own verdict on one completion: 0 or 1, or a fraction for graded data."""

    def grades(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, list[float]]:
        """Accuracies of the same completions under every reported grader; empty except for tasks over data."""
        return {}

    def demonstration(self, problem: Problem, rng: Random, clean: bool = False) -> str:
        """A response to imitate, drawn by `rng` where there are several.

        Args:
            clean: exclude bad demonstrations, if the task has some.

        Raises:
            UserError: this kind of task has none.
        """
        raise UserError(
            f"task {self.name!r} has no demonstrations to imitate: name a procedural task such as 'sort', or data "
            "with a column of them (task.demonstration_column)"
        )

    def scored_by(
        self, reward: str | Callable[..., Any] | None = None, accuracy: str | Callable[..., Any] | None = None
    ) -> Self:
        """Return the task with its reward and accuracy replaced by functions or their import paths.

        Raises:
            UserError: a path leads to no function.
        """
        made = copy.copy(self)
        made._reward = self._reward if reward is None else RewardFunction.of(reward, "reward")
        made._accuracy = self._accuracy if accuracy is None else RewardFunction.of(accuracy, "accuracy")
        return made

    @property
    def label(self) -> str:
        """The shortest string that names the task: `sort:hard`."""
        return f"{self.name}:{self.level}" if self.level else self.name

    def score(self, problems: Sequence[Problem], completions: Sequence[str]) -> Scores:
        """Score completion i as a response to problem i (a problem is repeated for each of its samples).

        Raises:
            UserError: a named function raised, or returned the wrong length or something that is not a finite number.
        """
        if self._accuracy is None:
            accuracy = [float(self.grade(p, c)) for p, c in zip(problems, completions, strict=True)]
        else:
            accuracy = self._accuracy.without_none(problems, completions)
        if self._reward is None:
            return Scores(reward=list(accuracy), accuracy=accuracy)
        reward = self._reward.values(problems, completions)
        if not isinstance(reward, dict):
            return Scores(reward=reward, accuracy=accuracy)
        return Scores(reward=total(reward), accuracy=accuracy, named=reward)
