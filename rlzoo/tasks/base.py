"""A task: problems that are a pure function of (split, index), and a verdict on completions.

    problem(split, index) -> Problem        score(problems, completions) -> Scores

Accuracy and reward are separate. Accuracy is the task's own verdict (0 or 1, or a fraction for graded data): it is what
evaluation reports and what dynamic sampling looks at. The reward is what training maximizes; it equals the accuracy
unless a reward function is named. No small format term is added by default: where a group's std divides the advantage,
a tiny difference between two wrong answers would count as much as right against wrong.
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
    """One entry per completion. A reward of None means unscorable: the response is left out of its group's baseline.

    Attributes:
        named: the rewards that make up `reward`, by name, where a reward function gives several; None for one reward.
    """

    reward: list[float | None]
    accuracy: list[float]
    named: dict[str, list[float | None]] | None = None


class Task(ABC):
    """What a trainer asks for problems and verdicts. A subclass defines `from_config`, `size`, `problem` and `grade`.

    `reward` and `accuracy` are import paths of functions (see `rlzoo.tasks.rewards`) that take the place of `grade`.
    """

    kind: ClassVar[str]
    """The name before the colon: `sort` in `sort:hard`, `jsonl` in `jsonl:data.jsonl`."""
    uses: ClassVar[frozenset[str]] = frozenset()
    """The fields of TaskConfig that this kind reads, apart from name, reward and accuracy. All others are rejected."""
    at_hand: ClassVar[bool] = False
    """True if problems are rows to look up, not drawn: a trainer looks through all of them before it starts."""

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
        """Build the task; `argument` is what stands after the colon of the name, or ''."""

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
        """Indices of the problems whose prompts may be empty or longer than so many bytes; none of problems drawn."""
        return range(self.size(split) or 0) if self.at_hand else ()

    def identity(self, problem: Problem) -> str:
        """Return what two problems share when one would give the other away; here the prompt."""
        return repr(problem.prompt)

    def environment(self, problem: Problem) -> Environment:
        """What answers the policy on one problem, a new one for each trajectory."""
        return SingleTurn(self.score, problem)

    @abstractmethod
    def grade(self, problem: Problem, completion: str) -> float:
        """The task's own verdict on one completion: 0 or 1, or a fraction for graded data."""

    def grades(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, list[float]]:
        """The accuracies of the same completions under every grader that evaluations report; none but for data."""
        return {}

    def demonstration(self, problem: Problem, rng: Random, clean: bool = False) -> str:
        """A response to imitate, drawn by `rng` where there are several.

        Args:
            clean: only one that shows how it is done; without it, bad ones too where the task has some.

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
        """Return the task with functions, or their import paths, in the place of its reward and its accuracy.

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
