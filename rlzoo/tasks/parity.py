"""parity: is the sum of the digits even (0) or odd (1)? `P4721=` -> `0`, or `40712110>0`

The scratchpad has each digit and the parity so far. Without it a small transformer guesses at chance; digit by digit it
is nearly always right, which shows the use of writing it out (2510.11495 mixes short and long demonstrations too).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from random import Random

from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import register_task


class Parity(ProceduralTask):
    """Levels are ranges of the number of digits. Right answers: one of two."""

    kind = "parity"
    levels = {"easy": (3, 4), "medium": (5, 7), "hard": (8, 10)}  # noqa: RUF012

    clean_styles = frozenset({"scratchpad"})

    def draw(self, level: str, rng: Random) -> Problem:
        digits = "".join(rng.choices("0123456789", k=rng.randint(*self.levels[level])))
        answer = str(sum(map(int, digits)) % 2)
        return Problem(f"P{digits}=", answer, {"answer": answer, "level": level})

    def key(self, problem: Problem) -> str:
        return str(problem.prompt)

    def styles(self, problem: Problem) -> Mapping[str, float]:
        return {"guess": 0.45, "scratchpad": 0.15, "slip": 0.15, "unfinished": 0.25}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        digits = str(problem.prompt)[1:-1]
        if style == "guess":
            return rng.choice("01")
        if style == "slip":
            place = rng.randrange(len(digits))
            digits = digits[:place] + rng.choice("0123456789") + digits[place + 1 :]
        parities = [str(total % 2) for total in accumulate(map(int, digits))]
        steps = [digit + parity for digit, parity in zip(digits, parities, strict=True)]
        if style == "unfinished":
            return "".join(steps[: rng.randint(2, len(steps))])
        return f"{''.join(steps)}>{parities[-1]}"


register_task(Parity)
