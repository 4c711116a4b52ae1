"""Batching of the requests of many coroutines: a batch is computed once no other request is about to arrive.

When every run waits, one kind of request is answered for all runs that wait for it: scores first, then gradients, then
optimizer steps, samples last. The runs therefore meet at sampling, the most expensive work, even if they take different
numbers of updates or rounds. "meet" comes after all work: it is answered once every steady run waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["score", "learn", "step", "sample", "meet"]
ORDER: tuple[Kind, ...] = ("score", "learn", "step", "sample", "meet")
QUIET_TURNS = 3
"""Turns of the event loop without a new request after which all coroutines are taken to be waiting."""
PATIENCE = 2.0
"""Minimum time in seconds to hold a batch for a steady run that is busy elsewhere, for example with grading."""


@dataclass(frozen=True)
class _Pending:
    kind: Kind
    run: str
    request: Any
    answer: asyncio.Future[Any]


class Batcher:
    """Collects requests and has them computed together, in the event loop's own thread.

    A batch waits for steady runs that have not sent a request yet: up to `PATIENCE` seconds or as long as the last
    batch took, whichever is longer. Waiting at most doubles the time, and a slow grader does not stop the other runs.
    """

    def __init__(self, compute: Callable[[Kind, list[Any]], Sequence[Any]]) -> None:
        """`compute` returns one answer per request, or the exception to raise in the coroutine that sent it."""
        self._compute = compute
        self._pending: list[_Pending] = []
        self._steady: dict[str, None] = {}
        self._scheduled: asyncio.Handle | None = None
        self._turns = 0
        self._since = self._lasted = 0.0

    def hold_for(self, run: str) -> None:
        """From now on, hold batches for this run."""
        self._steady[run] = None

    def forget(self, run: str) -> None:
        """Hold batches for this run no longer."""
        self._steady.pop(run, None)
        self._wake()

    async def ask(self, kind: Kind, run: str, request: Any) -> Any:
        """Wait for the answer to one request of a run."""
        answer = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(kind, run, request, answer))
        self._wake()
        return await answer

    def _wake(self) -> None:
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        if self._scheduled is not None:
            self._scheduled.cancel()
        self._turns, self._since = QUIET_TURNS, loop.time()
        self._scheduled = loop.call_soon(self._look)

    def _look(self) -> None:
        """Compute a batch if no other request is about to arrive; otherwise check again later."""
        loop = asyncio.get_running_loop()
        self._scheduled = None
        self._pending = [one for one in self._pending if not one.answer.done()]  # cancelled callers
        if not self._pending:
            return
        if self._turns:
            self._turns -= 1
            self._scheduled = loop.call_soon(self._look)
            return
        remaining = self._since + max(PATIENCE, self._lasted) - loop.time()
        kind = next(kind for kind in ORDER if any(one.kind == kind for one in self._pending))
        if self._steady.keys() - {one.run for one in self._pending}:
            if kind == "meet":  # nothing is computed, so nobody loses by waiting: the next request looks again
                return
            if remaining > 0:
                self._scheduled = loop.call_later(remaining, self._look)
                return
        due = [one for one in self._pending if one.kind == kind]
        # In the order of the runs, not of the threads that graded for them: the same batch every time.
        place = {run: place for place, run in enumerate(self._steady)}
        due.sort(key=lambda one: place.get(one.run, len(place)))
        self._pending = [one for one in self._pending if one.kind != kind]
        if kind == "meet":
            for one in due:
                one.answer.set_result(None)
            return
        start = loop.time()
        for one, answer in zip(due, self._answers(kind, [one.request for one in due]), strict=True):
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
        self._lasted = loop.time() - start
        self._wake()

    def _answers(self, kind: Kind, requests: list[Any]) -> Sequence[Any]:
        """Compute a batch. If that fails, try each request alone, so that only the faulty one fails."""
        failure = None
        try:
            return self._compute(kind, requests)
        except Exception as error:
            failure = error if len(requests) == 1 else None
        # Outside the handler: the error holds the frames, and with them the memory, of the batch that failed.
        if failure is not None:
            return [failure]
        return [answer for request in requests for answer in self._answers(kind, [request])]
