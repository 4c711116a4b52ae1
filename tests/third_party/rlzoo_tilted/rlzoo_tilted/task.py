"""double: the double of a number. `A21+21=` -> `42`, the shipped model's own notation for a sum"""

from __future__ import annotations

from random import Random

from rlzoo.config.task import TaskConfig
from rlzoo.tasks import Problem, Split, Task


class Double(Task):
    """Numbers of two digits: every fifth one is for tests. Right answers: one."""

    kind = "double"

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> Double:
        return cls(cls.kind, reward=config.reward, accuracy=config.accuracy)

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        numbers = [number for number in range(10, 100) if (number % 5 == 0) == (split == "test")]
        number = Random(f"{split}/{index}").choice(numbers)
        return Problem(f"A{number}+{number}=", str(2 * number))

    def grade(self, problem: Problem, completion: str) -> float:
        return float(completion.rsplit(">", 1)[-1].strip() == problem.answer)
