"""Threads that compute passes side by side: on a CPU one per core, each with its own pass.

A small model's products are too small to be divided: with two threads on every product, twenty runs took as long as
with one, because threads that share a product wait for each other thousands of times a second. Whole passes have
nothing to wait for. Which worker does what is fixed by the sizes alone, so sums are always taken in the same order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use, or as many threads as torch was told to use, if those are fewer."""
    return min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        torch.get_num_threads(),
    )


class Workers:
    """So many threads, each with one thread per product. One worker is the caller's own thread, just as it is."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def each(
        self, work: Callable[[Iterable[Item]], Result], items: Sequence[Item], sizes: Sequence[int]
    ) -> list[Result]:
        """Divide items among the workers, so that sums of their sizes are about equal, and return what each made.

        When one fails, or at Ctrl-C, the others end after the item they are at; only then does the error go on.
        """
        shares = divide(items, sizes, self.count)
        if self.count == 1:
            return [work(shares[0])]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "pass", initializer=torch.set_num_threads, initargs=(1,))
        stop = threading.Event()
        made = [self._pool.submit(work, _until(stop, share)) for share in shares]
        try:
            wait(made, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            wait(made)
        return [future.result() for future in made]


def _until(stop: threading.Event, items: Iterable[Item]) -> Iterator[Item]:
    """The items, as long as nobody says stop."""
    for item in items:
        if stop.is_set():
            return
        yield item


def divide(items: Sequence[Item], sizes: Sequence[int], count: int) -> list[list[Item]]:
    """At most `count` lists of items: the largest first, each to whoever has least; within a list in their order."""
    load = [0] * min(count, max(len(items), 1))
    share_of: dict[int, int] = {}
    for i in sorted(range(len(items)), key=lambda i: -sizes[i]):
        share_of[i] = load.index(min(load))
        load[share_of[i]] += sizes[i]
    return [[item for i, item in enumerate(items) if share_of[i] == share] for share in range(len(load))]
