"""paths:90: a path from one node to another in a fixed random graph, a character per node (2509.22613, section 2.1).

    s t      the prompt: source and target           s a b t      a path, every step of it an edge

An edge goes from each of the 90 nodes to each later one with probability 0.15. A fifth of the reachable pairs are for
training, each with 10 random walks to imitate; the others are the test split. A walk takes any next node from which the
target can be reached, as in the code of 2405.09220, whose setting it is.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from random import Random

from rlzoo.tasks.base import Split
from rlzoo.tasks.problem import Problem
from rlzoo.tasks.procedural import ProceduralTask
from rlzoo.tasks.registry import register_task

NAMES = (string.ascii_letters + string.digits + string.punctuation)[:90]
EDGE, TRAINED, WALKS = 0.15, 0.2, 10


@cache
def graph() -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Return the successors of every node, and the nodes that can be reached from it."""
    rng = Random("paths/graph")
    after = {s: [t for t in NAMES[i + 1 :] if rng.random() < EDGE] for i, s in enumerate(NAMES)}
    reached: dict[str, set[str]] = {}
    for s in reversed(NAMES):
        reached[s] = set(after[s]).union(*(reached[t] for t in after[s]))
    return after, reached


@cache
def pairs() -> dict[Split, list[str]]:
    """Return the reachable pairs of each split, as prompts."""
    rng = Random("paths/pairs")
    made: dict[Split, list[str]] = {"train": [], "test": []}
    for s, there in graph()[1].items():
        for t in sorted(there):
            made["train" if rng.random() < TRAINED else "test"].append(s + t)
    return made


class Paths(ProceduralTask):
    """Right is any path; the one level is the number of nodes."""

    kind = "paths"
    levels = {"90": 90}  # noqa: RUF012
    default_level = "90"
    clean_styles = frozenset({"walk"})

    def problem(self, split: Split, index: int) -> Problem:
        return self._of(Random(f"paths/{split}/{index}").choice(pairs()[split]))

    def draw(self, level: str, rng: Random) -> Problem:
        return self._of(rng.choice([*pairs()["train"], *pairs()["test"]]))

    def _of(self, pair: str) -> Problem:
        return Problem(pair, "", {"level": self.level})

    def key(self, problem: Problem) -> str:
        return str(problem.prompt)

    def grade(self, problem: Problem, completion: str) -> float:
        s, t = str(problem.prompt)
        steps = pairwise(completion)
        return float(completion[:1] == s and completion[-1:] == t and all(b in graph()[0].get(a, ()) for a, b in steps))

    def styles(self, problem: Problem) -> Mapping[str, float]:
        return {"walk": 1.0}

    def write(self, problem: Problem, style: str, rng: Random) -> str:
        return walk(str(problem.prompt), rng.randrange(WALKS))


@cache
def walk(pair: str, number: int) -> str:
    """Return one of a pair's walks."""
    (s, t), rng, (after, reached) = pair, Random(f"paths/{pair}/{number}"), graph()
    made = s
    while made[-1] != t:
        made += rng.choice([node for node in after[made[-1]] if node == t or t in reached[node]])
    return made


register_task(Paths)
