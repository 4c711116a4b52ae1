"""The actor of a Ray cluster that trains runs: one device, one engine, as many runs at a time as it is given.

Its methods are coroutines of one event loop, the engine's. What it has to say waits until the driver asks for it, so a
turn of a whole fleet is one answer; the answers of one worker keep their order.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any, Protocol

Tell = Callable[[dict[str, Any]], None]
Said = tuple[str, str, Any]
"""What happened ("record", "end", "back", "error"), the run's name, and the record, outcome or exception."""


class HandedBack(Exception):
    """A job was given up, to be done by another worker. The message is the reason, unless it was asked for."""


class Trainer(Protocol):
    """What a worker does; it travels there by pickle."""

    async def open(self, place: int) -> None:
        """Load everything. A `UserError` says what the worker lacks."""
        ...

    async def train(self, job: Any, tell: Tell, recalled: Callable[[], bool]) -> Any:
        """Do one job and return its outcome.

        Raises:
            HandedBack: `recalled()` was true at a moment when nothing gets lost; or the job cannot be done here now.
        """
        ...


class Worker:
    """The actor."""

    def __init__(self, trainer: Trainer, place: int) -> None:
        self.trainer, self.place = trainer, place
        self.said: list[Said] = []
        self.more = asyncio.Event()
        self.recalled: set[str] = set()
        self.jobs: set[asyncio.Task[Any]] = set()
        self.loaded = False

    async def here(self) -> str:
        """Return where this worker is, as soon as Ray has placed it."""
        return f"{socket.gethostname()}, pid {os.getpid()}"

    async def open(self) -> None:
        """Load everything.

        A second call is of a driver that lost sight of this worker and has given its jobs to others: they end here.
        """
        for job in self.jobs:
            job.cancel()
        await asyncio.gather(*self.jobs, return_exceptions=True)
        self.said.clear()
        if not self.loaded:
            await self.trainer.open(self.place)
            self.loaded = True

    async def train(self, name: str, job: Any) -> None:
        """Do one job; its records and its outcome are told by `listen`."""
        task = asyncio.ensure_future(self._train(name, job))
        self.jobs.add(task)
        task.add_done_callback(self.jobs.discard)
        await asyncio.wait([task])

    async def _train(self, name: str, job: Any) -> None:
        try:
            made = await self.trainer.train(job, lambda record: self._say("record", name, record), self._asked(name))
            self._say("end", name, made)
        except HandedBack as reason:
            self._say("back", name, str(reason))
        except Exception as error:
            self._say("error", name, portable(error, f"in the worker on {socket.gethostname()} that trained {name}"))
        finally:
            self.recalled.discard(name)

    async def hand_back(self, name: str) -> None:
        """Ask a run to be given up as soon as it is saved."""
        self.recalled.add(name)

    async def listen(self) -> list[Said]:
        """Wait until there is something to tell, and return all of it."""
        await self.more.wait()
        self.more.clear()
        said, self.said = self.said, []
        return said

    def _asked(self, name: str) -> Callable[[], bool]:
        return lambda: name in self.recalled

    def _say(self, what: str, name: str, content: Any) -> None:
        self.said.append((what, name, content))
        self.more.set()


def portable(error: Exception, where: str) -> Exception:
    """The error in a form that can be sent to another process, with a note of where it was raised."""
    note = f"{where}:\n{''.join(traceback.format_exception(error))}"
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of that
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
