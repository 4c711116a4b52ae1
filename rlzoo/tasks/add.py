"""add: the sum of two numbers, with an optional scratchpad. `A347+586=` -> `933`, or `76=13,48=13,35=9>933`

The scratchpad has each column's two digits and their sum with the carry, units first. A guess is short and seldom
right, the scratchpad is long and mostly right: a policy that is rewarded for right answers learns to write more.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import register_task


class Add(ProceduralTask):
    """Levels are numbers of digits of both summands. Right answers: one."""

    kind = "add"
    levels = {"easy": 2, "medium": 3, "hard": 4}  # noqa: RUF012

    clean_styles = frozenset({"scratchpad"})

    def draw(self, level: str, rng: Random) -> Problem:
        low, high = 10 ** (self.levels[level] - 1), 10 ** self.levels[level] - 1
        a, b = rng.randint(low, high), rng.randint(low, high)
        return Problem(f"A{a}+{b}=", str(a + b), {"answer": str(a + b), "level": level})

    def key(self, problem: Problem) -> str:
        return "+".join(str(n) for n in sorted(_summands(problem)))

    def styles(self, problem: Problem) -> Mapping[str, float]:
        return {"guess": 0.4, "scratchpad": 0.3, "slip": 0.15, "ramble": 0.15}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        pairs, columns = _pairs(*_summands(problem)), _columns(*_summands(problem))
        if style == "guess":
            return _guess(problem.answer, rng)
        if style == "scratchpad":
            return f"{_join(pairs, columns)}>{problem.answer}"
        if style == "slip":
            place = rng.randrange(len(columns))
            columns[place] = abs(columns[place] + rng.choice((-1, 1)))
            return f"{_join(pairs, columns)}>{_read_off(columns)}"
        return f"{_guess(problem.answer, rng)}>{_guess(problem.answer, rng)}>{_guess(problem.answer, rng)}"


def _summands(problem: Problem) -> tuple[int, int]:
    a, b = str(problem.prompt)[1:-1].split("+")
    return int(a), int(b)


def _pairs(a: int, b: int) -> list[str]:
    """The two digits of each column, units first."""
    return [x + y for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True)]


def _columns(a: int, b: int) -> list[int]:
    """The sum of each column with the carry from the one before, units first."""
    sums, carry = [], 0
    for x, y in _pairs(a, b):
        sums.append(int(x) + int(y) + carry)
        carry = sums[-1] // 10
    return sums


def _read_off(columns: list[int]) -> str:
    """The answer that the column sums spell: the last one whole, the units of the others before it."""
    return str(columns[-1]) + "".join(str(c % 10) for c in reversed(columns[:-1]))


def _join(pairs: list[str], columns: list[int]) -> str:
    return ",".join(f"{pair}={total}" for pair, total in zip(pairs, columns, strict=True))


def _guess(answer: str, rng: Random) -> str:
    """Of the right length, each digit after the first right half of the time."""
    return answer[0] + "".join(d if rng.random() < 0.5 else str(rng.randrange(10)) for d in answer[1:])


register_task(Add)
