"""bits:D-P: the parity of D bits, shown the long way in P percent of the demonstrations (2510.11495, section 2).

    0110...=      long: the parity so far after every bit, the last one the answer      short: the answer alone

The answer is the last bit of a response. A short demonstration begins like a long one half of the time: its bit is the
first bit. So after next-token prediction the chance to go on after that is p / (p + (1 - p) / 2), and greedy decoding
goes the long way if p is above 1/3.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from random import Random

from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import register_task


class Bits(ProceduralTask):
    """Levels are D-P: the number of bits, and the percentage of long demonstrations."""

    kind = "bits"
    levels = {f"{d}-{p}": (d, p / 100) for d in (8, 12, 16, 20, 50) for p in (5, 10, 25, 50, 100)}  # noqa: RUF012
    default_level = "16-25"
    clean_styles = frozenset({"long"})

    def draw(self, level: str, rng: Random) -> Problem:
        bits = "".join(rng.choices("01", k=self.levels[level][0]))
        answer = str(bits.count("1") % 2)
        return Problem(f"{bits}=", answer, {"answer": answer, "level": level})

    def key(self, problem: Problem) -> str:
        return str(problem.prompt)

    def grade(self, problem: Problem, completion: str) -> float:
        return float(completion[-1:] == problem.answer)

    def styles(self, problem: Problem) -> Mapping[str, float]:
        share = self.levels[problem.columns["level"]][1]
        return {"long": share, "short": 1 - share}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        if style == "short":
            return problem.answer
        bits = map(int, str(problem.prompt)[:-1])
        return "".join(str(total % 2) for total in accumulate(bits))


register_task(Bits)
