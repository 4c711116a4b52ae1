"""An environment answers the policy, turn after turn; a task that is over after one response is one of a single step.

    prompt = await environment.reset()
    while it goes on:   response = policy(everything so far);   answer = await environment.step(response)

What an environment says becomes tokens that exist and are not learned from. There is one environment per trajectory, so
it may keep what has happened in itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rlzoo.tasks.problem import Problem, Prompt


@dataclass(frozen=True)
class Answer:
    """What an environment answers to one response.

    Attributes:
        reward: of this response; None if it cannot be scored, and then nothing of the trajectory is learned from.
        accuracy: the verdict on the trajectory so far, 0 to 1; the last one counts.
        done: whether the trajectory is over.
        text: what comes before the next response, as the model is to read it, its chat marks included.
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
        """Take in a response and answer it."""
        ...


class SingleTurn:
    """A task's problem as an environment: one response, and what `Task.score` says of it."""

    def __init__(self, score: Callable[[list[Problem], list[str]], Any], problem: Problem) -> None:
        self.score, self.problem = score, problem

    async def reset(self) -> Prompt:
        """The problem's prompt."""
        return self.problem.prompt

    async def step(self, response: str) -> Answer:
        """Grade the response."""
        scores = await asyncio.to_thread(self.score, [self.problem], [response])
        return Answer(scores.reward[0], scores.accuracy[0])
