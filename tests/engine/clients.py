"""A local engine and clients of it, for tests that need no whole run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from torch import Tensor

from rlzoo.config.engine import EngineSettings
from rlzoo.engine.driver import drive
from rlzoo.engine.local import LocalEngine, opened
from rlzoo.engine.protocol import PolicyRef, RunSpec
from rlzoo.model.backbone import Backbone
from rlzoo.training.client import Client

Result = TypeVar("Result")


def on_local(backbone: Backbone, job: Callable[[LocalEngine], Coroutine[Any, Any, Result]], **settings: Any) -> Result:
    """Run a job on a local engine of its own."""

    async def run() -> Result:
        async with opened(backbone, EngineSettings(**settings)) as engine:
            return await job(engine)

    return drive(run())


async def hold(engine: LocalEngine, run: str, *thetas: Tensor, **spec: Any) -> PolicyRef:
    """Have an engine hold a run as if training had come to these vectors: of the policy, and of its own critic."""
    await engine.create(RunSpec(run, **spec))
    held = engine.runs[run]
    for parameter, theta in zip(held.parameters, thetas, strict=True):
        parameter.data.copy_(theta)
    held.version = 1
    return held.policy


def run_client(
    backbone: Backbone, job: Callable[[Client], Coroutine[Any, Any, Result]], theta: Tensor | None = None
) -> Result:
    """Run a job of one client on an engine of its own; its policy is `theta`, or that of a run that has just begun."""

    async def run(engine: LocalEngine) -> Result:
        if theta is None:
            return await job(await Client.open(engine, RunSpec("run")))
        return await job(Client(engine, "run", await hold(engine, "run", theta), await engine.info()))

    return on_local(backbone, run)
