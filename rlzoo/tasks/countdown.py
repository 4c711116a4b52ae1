"""countdown: reach a target with three numbers, each used once. `C257:17=` -> `2*5+7`, or `7+5*2`, or `2+5+7=14>2*5+7`

Many answers are right. An attempt may be followed by its value, `=17`; a search writes wrong attempts, separated by
`>`, until one is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import permutations, product
from random import Random
from typing import NamedTuple

from rlzoo.tasks.expression import evaluate
from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask, final_part
from rlzoo.tasks.registry import register_task


class Grammar(NamedTuple):
    """The operations that generate a level's targets (answers may use any), and whether brackets occur."""

    operations: str
    brackets: bool


class Countdown(ProceduralTask):
    """Levels are grammars. `Problem.answer` is one of the right answers."""

    kind = "countdown"
    levels = {  # noqa: RUF012
        "easy": Grammar("+-", brackets=False),
        "medium": Grammar("+-*", brackets=False),
        "hard": Grammar("+-*/", brackets=True),
    }

    clean_styles = frozenset({"direct", "search"})

    def draw(self, level: str, rng: Random) -> Problem:
        while True:
            numbers = rng.choices("123456789", k=3)
            answer = _attempt(numbers, self.levels[level], rng)
            target = _value(answer)
            if target is not None and 0 <= target < 100:
                columns = {"answer": answer, "level": level, "numbers": [int(n) for n in numbers], "target": target}
                return Problem(f"C{''.join(numbers)}:{target}=", answer, columns)

    def key(self, problem: Problem) -> str:
        return f"{sorted(problem.columns['numbers'])}->{problem.columns['target']}"

    def grade(self, problem: Problem, completion: str) -> float:
        expression, _, claim = final_part(completion).partition("=")
        found = evaluate(expression)
        target, numbers = problem.columns["target"], sorted(problem.columns["numbers"])
        right = found is not None and found[0] == target and sorted(found[1]) == numbers
        return float(right and claim.strip() in ("", str(target)))

    def styles(self, problem: Problem) -> Mapping[str, float]:
        return {"direct": 0.5, "search": 0.3, "guess": 0.2}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        grammar, target = self.levels[problem.columns["level"]], problem.columns["target"]
        numbers = [str(n) for n in problem.columns["numbers"]]
        if style == "guess":
            return _attempt(numbers, grammar, rng)
        right = rng.choice(_solutions(tuple(sorted(numbers)), grammar)[target])
        if style == "direct":
            return right
        attempts = (_attempt(numbers, grammar, rng) for _ in range(rng.randint(1, 2)))
        misses = [f"{a}={v}" for a in attempts if (v := _value(a)) not in (None, target)]
        return ">".join([*misses, right])


def _forms(x: str, f: str, y: str, g: str, z: str, brackets: bool) -> list[str]:
    plain = f"{x}{f}{y}{g}{z}"
    return [plain, f"({x}{f}{y}){g}{z}", f"{x}{f}({y}{g}{z})"] if brackets else [plain]


def _attempt(numbers: list[str], grammar: Grammar, rng: Random) -> str:
    """A random expression of the grammar that uses each number once."""
    x, y, z = rng.sample(numbers, 3)
    return rng.choice(_forms(x, rng.choice(grammar.operations), y, rng.choice(grammar.operations), z, grammar.brackets))


@cache
def _solutions(numbers: tuple[str, ...], grammar: Grammar) -> dict[int | None, list[str]]:
    """All expressions of the grammar that use each number once, by value."""
    found: dict[int | None, list[str]] = {}
    for (x, y, z), (f, g) in product(sorted(set(permutations(numbers))), product(grammar.operations, repeat=2)):
        for form in _forms(x, f, y, g, z, grammar.brackets):
            found.setdefault(_value(form), []).append(form)
    return found


def _value(expression: str) -> int | None:
    """The value where it is a whole number."""
    found = evaluate(expression)
    return int(found[0]) if found is not None and found[0].denominator == 1 else None


register_task(Countdown)
