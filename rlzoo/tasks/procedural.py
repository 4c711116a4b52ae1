"""Procedural tasks: problems drawn from a seed, exact verdicts, levels, and demonstrations in good and bad styles.

A problem is a pure function of (task, level, split, index). A hash of its key decides whether it is a train or a test
problem. Two problems have the same key if one reveals the answer of the other (for sorting: the same digits in any
order). So the splits are disjoint by construction, within and across levels.

Prompts are short and begin with a letter that names the task, so that one small model can serve all of them. A
completion may think before it answers: the answer is the text after its last `>`, or all of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from hashlib import blake2b
from random import Random
from typing import Any, ClassVar

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError, nearest
from rlzoo.tasks.base import Split, Task
from rlzoo.tasks.problem import Problem

MIXED = "mixed"
TEST_SHARE = 10
"""One key in this many belongs to the test split."""


def split_of(kind: str, key: str) -> Split:
    """The split that a problem belongs to, by a hash that is the same on every machine."""
    digest = blake2b(f"{kind}|{key}".encode(), digest_size=8).digest()
    return "test" if int.from_bytes(digest, "big") % TEST_SHARE == 0 else "train"


def final_part(completion: str) -> str:
    """The answer in a completion: what follows its last `>`."""
    return completion.rsplit(">", 1)[-1].strip()


class ProceduralTask(Task):
    """A subclass gives `levels`, `draw`, `key`, `styles`, `clean_styles` and `write`.

    It gives `grade` too where more than one answer is right.
    `levels` maps the name of a level to its settings; `mixed`, which draws one of them per problem, comes with it.
    """

    uses = frozenset({"level"})
    levels: ClassVar[Mapping[str, Any]]
    default_level: ClassVar[str] = "medium"
    clean_styles: ClassVar[frozenset[str]]
    """The styles that show how to solve the problem; a learner should see them first."""

    def __init__(self, level: str | None = None, reward: str | None = None, accuracy: str | None = None):
        level = level or self.default_level
        if level != MIXED and level not in self.levels:
            raise UserError(f"task {self.kind!r}: unknown level {level!r}; {nearest(level, [*self.levels, MIXED])}")
        super().__init__(self.kind, level, reward, accuracy)

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> ProceduralTask:
        if argument and config.level and argument != config.level:
            raise UserError(f"task {config.name!r}: level = {config.level!r} says otherwise; give the level once")
        return cls(argument or config.level, config.reward, config.accuracy)

    def size(self, split: Split) -> int | None:
        return None

    def problem(self, split: Split, index: int) -> Problem:
        rng = Random(f"{self.kind}/{self.level}/{split}/{index}")
        while True:
            level = rng.choice(sorted(self.levels)) if self.level == MIXED else self.level
            problem = self.draw(str(level), rng)
            if split_of(self.kind, self.key(problem)) == split:
                return problem

    def identity(self, problem: Problem) -> str:
        return self.key(problem)

    def grade(self, problem: Problem, completion: str) -> float:
        return float(final_part(completion) == problem.answer)

    def demonstration(self, problem: Problem, rng: Random, clean: bool = False) -> str:
        """A completion to imitate, in a style drawn by its share; it need not be right.

        `clean` leaves only `clean_styles`, in the same proportions.
        """
        shares = {s: share for s, share in self.styles(problem).items() if s in self.clean_styles or not clean}
        style = rng.choices(list(shares), weights=list(shares.values()))[0]
        return self.write(problem, style, rng)

    @abstractmethod
    def draw(self, level: str, rng: Random) -> Problem:
        """Draw one problem of the level, of either split."""

    @abstractmethod
    def key(self, problem: Problem) -> str:
        """The key that decides the split: equal for problems that reveal each other's answer."""

    @abstractmethod
    def styles(self, problem: Problem) -> Mapping[str, float]:
        """The styles of demonstrations for this problem and their shares, which sum to 1."""

    @abstractmethod
    def write(self, problem: Problem, style: str, rng: Random) -> str:
        """A demonstration in the given style."""
