"""Calling coroutines from ordinary code: run jobs to completion in a separate event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")
LISTEN_EVERY = 0.05
"""Seconds between two calls of `each_turn`, when no work is under way."""


def drive(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to completion and return its result.

    Ctrl-C is raised immediately, also during a long computation. If a loop is already running, as in a notebook, the
    coroutine runs in a new thread, and this thread waits for it.
    """
    if not _in_loop():
        return _drive(coroutine)
    results: list[Result] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            results.append(context.run(_drive, coroutine))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="rlzoo engine")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _drive(coroutine: Coroutine[Any, Any, Result]) -> Result:
    # Not asyncio.run: on Ctrl-C that would wait for the computation under way.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        _end(loop, asyncio.all_tasks(loop))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:  # all at once: none goes on with an answer that it has got already
        task.cancel()
    while left := [task for task in tasks if not task.done()]:
        with suppress(KeyboardInterrupt, SystemExit):  # one that was raised already comes out of each task again
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


async def together(
    jobs: Mapping[str, Coroutine[Any, Any, Any]], each_turn: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Run all jobs concurrently and return their results. An exception in one job ends all of them.

    Args:
        each_turn: called periodically between pieces of work; an exception in it ends all jobs too.
    """

    async def listen() -> None:
        while True:
            each_turn()
            await asyncio.sleep(LISTEN_EVERY)

    tasks = [asyncio.ensure_future(job) for job in jobs.values()]
    everything, listener = asyncio.gather(*tasks), asyncio.ensure_future(listen())
    try:
        await asyncio.wait([everything, listener], return_when=asyncio.FIRST_COMPLETED)
        if listener.done():
            listener.result()
        return dict(zip(jobs, await everything, strict=True))
    finally:
        for task in (*tasks, listener):
            if not task.cancelling():  # twice would end its clean-up, too
                task.cancel()
        await asyncio.gather(everything, *tasks, listener, return_exceptions=True)


def run_jobs(
    open_engine: Callable[[], Any],
    jobs: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]],
) -> dict[str, Any]:
    """Open an engine, give it to each job, and return what the jobs returned, by name."""

    async def run() -> dict[str, Any]:
        async with open_engine() as engine:
            return await together({name: job(engine) for name, job in jobs.items()})

    return drive(run())
