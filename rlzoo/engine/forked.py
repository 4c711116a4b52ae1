"""The runs of a fleet divided among processes: on a CPU one per core, each with a local engine and a share of the runs.

    process p of P trains runs p, p + P, p + 2P, ...

Processes, not threads, because threads of one process would wait for Python's interpreter lock. They are forked after
model, runs and teachers are loaded, so these are in memory once. The calling process trains the first share. Only it
calls `on_record`; the other processes send it their records, output and errors through pipes.

So there is no second `Engine` here, and no request crosses a process: each child opens a local engine for its runs. The
suite `tests/engine/test_conformance.py` runs on the engine of a child as on that of the caller.

Each process computes its own batches. Equal sample requests (all runs are the base model before their first update) are
answered once per process. Engine seconds are those of a run's own process. Tasks and reward functions have separate
memory in each process.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from rlzoo.config.engine import EngineSettings
from rlzoo.engine.micro_batches import OVERHEAD
from rlzoo.errors import UserError

OnRecord = Callable[[str, dict[str, Any]], None]
Work = Callable[[Sequence[str], OnRecord | None, Callable[[], None]], dict[str, Any]]
"""Does the work of the named runs. Takes a listener for records (or None) and a function to call periodically."""
PATIENCE = 5.0
"""Seconds between telling a process to end and killing it."""


def count_processes(settings: EngineSettings, device: torch.device, runs: int) -> int:
    """Return the number of processes to train `runs` runs with.

    Raises:
        UserError: the settings ask for several processes where only one is possible.
    """
    hindrance = "the server computes for all runs" if settings.name == "tinker" else _hindrance(device)
    if settings.processes is not None and settings.processes > 1 and hindrance:
        raise UserError(f"engine.processes = {settings.processes}: {hindrance}. Leave it out, or set it to 1")
    if settings.sampler != "local":
        return 1  # `EngineSettings` refuses more
    if settings.processes is not None:
        return max(1, min(settings.processes, runs))
    worthwhile = min(cores(), settings.micro_batch_tokens // OVERHEAD)
    return 1 if hindrance else max(1, min(worthwhile, runs))


def _hindrance(device: torch.device) -> str | None:
    """Return why runs on this device must share one process; None if they can be divided."""
    if device.type != "cpu":
        return f"runs on {device.type} share one process, whose batches fill the device better than two would"
    if sys.platform != "linux":
        return "processes are forked, which is safe on Linux only"
    if torch.accelerator.is_available():  # for it torch keeps threads, of gradients on the CPU too, that no fork has
        return "torch cannot be forked where it sees a GPU (CUDA_VISIBLE_DEVICES= hides it)"
    return None


def cores() -> int:
    """Return the number of cores this process may use, at most torch's own number of threads."""
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(able, torch.get_num_threads())


def share_of(settings: EngineSettings, processes: int) -> EngineSettings:
    """The settings of each process, so that all processes together use what the settings allow."""
    if processes == 1:
        return settings
    return settings.model_copy(
        update={
            "processes": 1,
            "micro_batch_tokens": max(1, settings.micro_batch_tokens // processes),
            "sample_rows": max(1, settings.sample_rows // processes),
        }
    )


def shares_of(names: Sequence[str], processes: int) -> list[Sequence[str]]:
    """Return the names that each process works for."""
    return [names[first::processes] for first in range(processes)]


def divide_work(names: Sequence[str], processes: int, work: Work, on_record: OnRecord | None) -> dict[str, Any]:
    """Divide the work of `names` among processes and return name -> result.

    `on_record` is called in this thread, with the records of each run in their order. An exception, here or in another
    process, kills the other processes and is raised here.

    Raises:
        UserError: something outside killed a process.
    """
    shares = shares_of(names, processes)
    if processes == 1:
        return work(names, on_record, _do_nothing)
    with _one_thread(), _Children(shares[1:], work, on_record) as children:
        made = work(shares[0], on_record, children.listen)
        while children.open:
            children.listen(None)
    return made | children.made


def _do_nothing() -> None:
    """A process without others has nothing to listen to."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within: products have one thread each, as OpenMP hangs in a forked process that asks it for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # a collector that writes to every object would copy the pages that processes share
    try:
        yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)


class _Children:
    """The other processes, from their fork to their end; a context manager.

    Attributes:
        open: pipe -> (process, names of its runs), for processes that still work.
        made: name -> result, for processes that have ended.
    """

    def __init__(self, shares: Sequence[Sequence[str]], work: Work, on_record: OnRecord | None) -> None:
        self.shares, self.work, self.on_record = shares, work, on_record
        self.processes: list[BaseProcess] = []
        self.open: dict[Connection, tuple[BaseProcess, Sequence[str]]] = {}
        self.made: dict[str, Any] = {}

    def __enter__(self) -> _Children:
        context = multiprocessing.get_context("fork")
        # Ctrl-C reaches every process of a terminal; it is for the first alone, which stops the others.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for names in self.shares:
                receiver, sender = context.Pipe(duplex=False)
                # Whoever holds an end keeps the pipe open: each end has one holder, so its death shows at the other.
                others = [*self.open, receiver]
                arguments = (sender, others, self.work, names, self.on_record is not None)
                process = context.Process(target=_child, args=arguments)
                self.processes.append(process)
                process.start()
                sender.close()
                self.open[receiver] = (process, names)
        except BaseException:
            self.__exit__()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self

    def listen(self, seconds: float | None = 0) -> None:
        """Handle messages that have arrived; with None, wait for one. Raises the error that a process ended with."""
        for receiver in wait(list(self.open), seconds):
            assert isinstance(receiver, Connection)
            while receiver in self.open and receiver.poll():
                self._take(receiver)

    def _take(self, receiver: Connection) -> None:
        process, names = self.open[receiver]
        try:
            kind, said = receiver.recv()
        except EOFError:
            process.join()
            raise UserError(_ended_from_outside(process, names)) from None
        if kind == "record" and self.on_record is not None:
            self.on_record(*said)
        elif kind == "print":
            stream, text = said
            getattr(sys, stream).write(text)
        elif kind == "end":
            self.made |= said
            del self.open[receiver]
            receiver.close()
        else:
            raise said

    def __exit__(self, *_: object) -> None:
        started = [process for process in self.processes if process.pid is not None]
        for process in started:
            if self.open:
                process.terminate()
        for process in started:
            process.join(PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()
        for receiver in self.open:
            receiver.close()


def _ended_from_outside(process: BaseProcess, names: Sequence[str]) -> str:
    code = process.exitcode
    how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
    return (
        f"the process that trained {', '.join(names)} ended without a word ({how}). If the machine was out of memory, "
        "train with engine.processes = 1 or fewer micro_batch_tokens. Everything up to the last checkpoint is safe: "
        "continue with --resume"
    )


def _child(sender: Connection, others: Sequence[Connection], work: Work, names: Sequence[str], heard: bool) -> None:
    """In the forked process: do a share of the work and report its outcome."""
    parent = os.getppid()
    for receiver in others:
        receiver.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lock = threading.Lock()

    def say(*message: Any) -> None:
        with lock:
            sender.send(message)

    def end_with_the_first() -> None:
        if os.getppid() != parent:
            sys.exit()

    # The terminal is the first process's: it may be showing a table there.
    for stream in ("stdout", "stderr"):
        setattr(sys, stream, _Printed(lambda text, stream=stream: say("print", (stream, text))))
    try:
        tell = (lambda name, record: say("record", (name, record))) if heard else None
        say("end", work(names, tell, end_with_the_first))
    except BaseException as error:
        with suppress(BrokenPipeError):  # nobody is left to be told
            say("error", _portable(error, names))


class _Printed(io.TextIOBase):
    """A stream that passes on what is written to it."""

    def __init__(self, hand_on: Callable[[str], None]) -> None:
        self.hand_on = hand_on

    def write(self, text: str) -> int:
        self.hand_on(text)
        return len(text)


def _portable(error: BaseException, names: Sequence[str]) -> BaseException:
    """The error in a form that can be sent to another process, with a note of where it was raised."""
    where = f"in the process that trained {', '.join(names)}:\n{''.join(traceback.format_exception(error))}"
    error.add_note(where)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of that
        error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(where)
    return error
