"""sort: write the digits in ascending order. `S4721=` -> `1247`

The careless styles answer with a first attempt that has a slip; `check` corrects such an attempt afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import register_task


class Sort(ProceduralTask):
    """Levels are ranges of the number of digits. Right answers: one."""

    kind = "sort"
    levels = {"easy": (3, 4), "medium": (5, 6), "hard": (7, 9)}  # noqa: RUF012

    clean_styles = frozenset({"direct"})

    def draw(self, level: str, rng: Random) -> Problem:
        digits = "".join(rng.choices("0123456789", k=rng.randint(*self.levels[level])))
        return Problem(f"S{digits}=", "".join(sorted(digits)), {"answer": "".join(sorted(digits)), "level": level})

    def key(self, problem: Problem) -> str:
        return problem.answer

    def styles(self, problem: Problem) -> Mapping[str, float]:
        return {"direct": 0.25, "check": 0.15, "careless": 0.4, "ramble": 0.2}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        digits = list(problem.answer)
        if style == "direct":
            return problem.answer
        if style == "careless":
            return _slip(digits, rng)
        if style == "check":
            return f"{_slip(digits, rng)}>{problem.answer}"
        return f"{_shuffle(digits, rng)}>{_slip(digits, rng)}"


def _slip(digits: list[str], rng: Random) -> str:
    """Two neighbours swapped, a digit written twice, or one forgotten."""
    digits = list(digits)
    place = rng.randrange(len(digits) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        digits[place], digits[place + 1] = digits[place + 1], digits[place]
    elif kind == 1:
        digits[place + 1] = digits[place]
    else:
        del digits[place]
    return "".join(digits)


def _shuffle(digits: list[str], rng: Random) -> str:
    return "".join(rng.sample(digits, len(digits)))


register_task(Sort)
