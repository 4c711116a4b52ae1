"""Responses of all algorithms to the same held-out prompts, at several moments of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlzoo.report.read import Study, words
from rlzoo.store.run_folder import SAMPLES, read_lines

PROMPTS, MOMENTS = 6, 6
"""How many prompts and evaluations a report shows responses of."""
TEXT_LIMIT = 1200
"""Letters of one response."""


@dataclass(frozen=True)
class Response:
    """One algorithm's response at one moment; `more` letters of it are left out."""

    text: str
    more: int
    right: bool
    reward: float | None
    length: int
    finished: bool


@dataclass(frozen=True)
class Problem:
    """A held-out prompt, and moment -> algorithm -> response."""

    prompt: str
    answer: str
    moments: dict[int, dict[str, Response]]


def read_responses(study: Study) -> tuple[int, list[Problem]]:
    """Return the lowest seed that every algorithm has, and what its runs answered to the same prompts through training.

    Only evaluations are read: they ask the same prompts every time. Of many moments some are kept, the first and the
    last of them always.
    """
    shared = set.intersection(*({run.seed for run in study.of(name)} for name in study.algorithms))
    seed = min(shared or study.seeds)
    told: dict[tuple[str, str], dict[int, dict[str, Response]]] = {}
    for run in study.runs:
        if run.seed == seed:
            for sample in read_lines(run.path / SAMPLES):
                if sample["kind"] == "eval":
                    problem = told.setdefault((_prompt(sample["prompt"]), words(sample["answer"])), {})
                    problem.setdefault(sample["step"], {})[run.algorithm] = _response(sample)
    problems = []
    for (prompt, answer), moments in list(told.items())[:PROMPTS]:
        steps = sorted(moments)
        kept = {steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(MOMENTS, len(steps)))}
        problems.append(Problem(prompt, answer, {step: moments[step] for step in steps if step in kept}))
    return seed, problems


def _response(sample: Mapping[str, Any]) -> Response:
    text = sample["completion"]
    return Response(
        text=text[:TEXT_LIMIT],
        more=max(0, len(text) - TEXT_LIMIT),
        right=sample["accuracy"] > 0.5,
        reward=sample["reward"],
        length=sample["length"],
        finished=sample["finished"],
    )


def _prompt(value: str | Sequence[Mapping[str, str]]) -> str:
    """Return a prompt as text; of a chat, each message after its role."""
    if isinstance(value, str):
        return value
    return "\n".join(f"{message['role']}: {message['content']}" for message in value)
