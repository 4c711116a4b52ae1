"""One run's client of its engine: it names the run in every request and adds up the engine time of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from rlzoo.engine.protocol import (
    Engine,
    EngineInfo,
    Learned,
    LearnRequest,
    PolicyRef,
    RunSpec,
    SampleRequest,
    Samples,
    Scored,
    ScoreRequest,
    Stepped,
    StepSettings,
)
from rlzoo.training.failure import failing

Answer = TypeVar("Answer", Samples, Scored, Learned, Stepped)


class Client:
    """An engine as one run sees it. A request that fails raises `RunFailed`.

    Attributes:
        policy: the run's current policy.
        info: the engine's properties.
        seconds: engine time charged to the run so far.
    """

    def __init__(self, engine: Engine, run: str, policy: PolicyRef, info: EngineInfo) -> None:
        self.engine, self.run, self.policy, self.info = engine, run, policy, info
        self.seconds = 0.0

    @classmethod
    async def open(cls, engine: Engine, spec: RunSpec, checkpoint: str | None = None) -> Client:
        """Create the run in the engine; with `checkpoint`, restore it from that folder."""
        policy = await engine.create(spec)
        if checkpoint is not None:
            policy = await engine.load(spec.run, checkpoint)
        return cls(engine, spec.run, policy, await engine.info())

    async def close(self) -> None:
        """Release the run."""
        await self.engine.release(self.run)

    async def sample(self, *requests: SampleRequest) -> list[Samples]:
        """Sample for several requests at the same time."""
        asked = [self._charged("sampling", self.engine.sample, replace(one, run=self.run)) for one in requests]
        return list(await asyncio.gather(*asked))

    async def score(self, request: ScoreRequest, engine: Engine | None = None) -> Scored:
        """Score responses without gradient, on this engine or another one; the time is charged to this run."""
        return await self._charged("scoring", (engine or self.engine).score, replace(request, run=self.run))

    async def forward_backward(self, request: LearnRequest) -> Learned:
        """Add the gradient of some rows to the run's."""
        return await self._charged("forward_backward", self.engine.forward_backward, request)

    async def optim_step(self, settings: StepSettings) -> Stepped:
        """Take an optimizer step with the accumulated gradient."""
        stepped = await self._charged("optim_step", self.engine.optim_step, self.run, settings)
        self.policy = stepped.policy
        return stepped

    async def meet(self) -> None:
        """Wait until every other run of the engine waits here, too, or has ended."""
        await self.engine.meet(self.run)

    async def save(self, folder: str, optimizer: bool = True) -> None:
        """Save the run's adapters, and its optimizer on request."""
        await self.engine.save(self.run, folder, optimizer)

    async def _charged(self, action: str, ask: Callable[..., Awaitable[Answer]], *arguments: Any) -> Answer:
        """Called only once it is awaited: one that is cancelled before leaves no coroutine that nobody awaits."""
        with failing(action):
            answer = await ask(*arguments)
        self.seconds += answer.seconds
        return answer
