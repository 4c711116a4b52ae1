"""What ends one run and leaves the others: its loss, its reward, its folder, its requests to the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rlzoo.engine.protocol import NotFinite
from rlzoo.errors import UserError

Result = TypeVar("Result")
GRADING_TIMEOUT = 600.0
"""Default limit in seconds for the responses of one rollout."""


class RunFailed(Exception):
    """One run cannot go on. The message is the reason.

    Attributes:
        final: a repetition would fail in the same way. Otherwise the run can be resumed once the cause is removed.
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@contextmanager
def failing(action: str) -> Iterator[None]:
    """Context in which an exception means that this run has failed. `action` names what the run was doing."""
    try:
        yield
    except RunFailed:
        raise
    except NotFinite as error:
        raise RunFailed(str(error), final=True) from error
    except UserError as error:
        raise RunFailed(str(error)) from error
    except Exception as error:
        raise RunFailed(f"{action} raised {type(error).__name__}: {error}") from error


async def in_thread(function: Callable[..., Result], *args: Any, seconds: float) -> Result:
    """Call a function in a separate thread, so that other runs continue, and return its result.

    Raises:
        RunFailed: it takes longer than `seconds`. The thread cannot be stopped; its result is ignored.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def call() -> None:
        result, error = None, None
        try:
            result = function(*args)
        except Exception as raised:
            error = raised
        except BaseException as raised:  # sys.exit(), say: unanswered, the run would wait for it
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    # A daemon: a grader that never returns must not keep the process from ending.
    threading.Thread(target=call, name="grading", daemon=True).start()
    try:
        async with asyncio.timeout(seconds) as limit:  # not wait_for: Python 3.11's may forget that it was cancelled
            return await outcome
    except TimeoutError:
        if not limit.expired():  # the function's own
            raise
        name = getattr(function, "__qualname__", str(function))
        raise RunFailed(f"{name} took longer than {seconds:g} s (train.grading_timeout)") from None
