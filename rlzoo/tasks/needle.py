"""needle: the digits in descending order, which the demonstrations hardly ever show. `N53197=` -> `97531`

A demonstration is a shuffle of the digits; a small fixed share of them (see `levels`) is right. A policy that imitates
them is right in about the same share of its samples, so nearly every group is all wrong and has no signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import register_task


class Needle(ProceduralTask):
    """A level is (number of digits, all different; share of right demonstrations). Right answers: one."""

    kind = "needle"
    levels = {"easy": (4, 0.02), "medium": (5, 0.005), "hard": (6, 0.001)}  # noqa: RUF012

    clean_styles = frozenset({"right", "shuffle"})  # at no time does a learner see it more often

    def draw(self, level: str, rng: Random) -> Problem:
        digits = rng.sample("0123456789", self.levels[level][0])
        answer = "".join(sorted(digits, reverse=True))
        return Problem(f"N{''.join(digits)}=", answer, {"answer": answer, "level": level})

    def key(self, problem: Problem) -> str:
        return problem.answer

    def styles(self, problem: Problem) -> Mapping[str, float]:
        right = self.levels[problem.columns["level"]][1]
        return {"right": right, "shuffle": 1 - right}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        if style == "right":
            return problem.answer
        shuffled = problem.answer
        while shuffled == problem.answer:
            shuffled = "".join(rng.sample(problem.answer, len(problem.answer)))
        return shuffled


register_task(Needle)
