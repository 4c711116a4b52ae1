"""An environment answers the policy turn by turn; a single-turn task is an environment with one step.

    prompt = await environment.reset()
    while it goes on:   response = policy(everything so far);   answer = await environment.step(response)

An environment's text becomes tokens that exist but are not learned from. Each trajectory has its own environment, which
may keep state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rlzoo.tasks.problem import Problem, Prompt


@dataclass(frozen=True)
class Answer:
    """An environment's answer to one response.

    Attributes:
        reward: of this response; None if it cannot be scored: then the whole trajectory is not learned from.
        accuracy: the verdict on the trajectory so far, 0 to 1; the last one counts.
        done: whether the trajectory is over.
        text: text before the next response, exactly as the model reads it, including chat marks.
    """

    reward: float | None
    accuracy: float
    done: bool = True
    text: str = ""


class Environment(Protocol):
    """One trajectory on one problem."""

    async def reset(self) -> Prompt:
        """The prompt: the same for every trajectory on the problem."""
        ...

    async def step(self, response: str) -> Answer:
        """Answer a response."""
        ...


class SingleTurn:
    """A task's problem as an environment: one response, scored by `Task.score`."""

    def __init__(self, score: Callable[[list[Problem], list[str]], Any], problem: Problem) -> None:
        self.score, self.problem = score, problem

    async def reset(self) -> Prompt:
        """The problem's prompt."""
        return self.problem.prompt

    async def step(self, response: str) -> Answer:
        """Grade the response."""
        scores = await asyncio.to_thread(self.score, [self.problem], [response])
        return Answer(scores.reward[0], scores.accuracy[0])
