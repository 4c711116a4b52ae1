"""Peak memory of this process, of the processes that it forks, and of the GPU, from a chosen moment on.

    peak = sum of the processes' high-water marks - shared memory that was counted more than once

The kernel keeps a high-water mark per process, so no process's peak is missed between two readings. It keeps none of
the sum: the result is exact for one process, and for several an upper bound, reached if all peak at the same time.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

PROC = Path("/proc")
STATUS, CLEAR = PROC / "self" / "status", PROC / "self" / "clear_refs"
RESET_PEAK = "5"  # proc(5): resets the high-water mark to the current resident size
BETWEEN_READINGS = 0.5
"""Seconds between two readings of the marks; a reading takes 0.1 ms per process."""


def fields(path: Path) -> dict[str, int]:
    """Return the sizes in a file of /proc, in bytes; `status` has VmRSS (resident now), VmHWM (high-water mark) etc.

    `getrusage` is no alternative: a process inherits its parent's mark. Linux only.
    """
    lines = [line.split() for line in path.read_text().splitlines()]
    return {name.removesuffix(":"): 1024 * int(size[0]) for name, *size in lines if size[1:] == ["kB"]}


def resident(name: str) -> int:
    """Return a size of this process's status in bytes."""
    return fields(STATUS)[name]


class PeakMemory:
    """Watches memory from construction until `peak` is called; `loaded` is the resident size at the start."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        CLEAR.write_text(RESET_PEAK)
        self.loaded = resident("VmRSS")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.marks = {os.getpid(): self.loaded}
        """Process -> its last high-water mark in bytes; includes processes that have ended."""
        self.shared: dict[int, int] = {1: 0}
        """Number of processes -> bytes counted more than once: the smallest value seen, because pages stop being shared
        when a process writes to them."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(BETWEEN_READINGS):
            self._read_marks()

    def look(self) -> None:
        """Read the marks and the shared sizes. Call it rarely while timing: the kernel walks all pages, which blocks a
        process of 600 MB for 20 ms."""
        with suppress(OSError, KeyError):  # a process may end meanwhile
            pids = self._read_marks()
            if len(pids) > 1:
                shared = shared_bytes([fields(PROC / str(pid) / "smaps_rollup") for pid in pids])
                self.shared[len(pids)] = min(shared, self.shared.get(len(pids), shared))

    def _read_marks(self) -> list[int]:
        """Read the high-water marks of all processes and return their ids."""
        pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children() if process.pid)]
        for pid in pids:  # the kernel updates counts and marks with a delay of some pages
            with self._lock, suppress(OSError, KeyError):
                self.marks[pid] = max(fields(PROC / str(pid) / "status")["VmHWM"], self.marks.get(pid, 0))
        return pids

    def peak(self) -> int:
        """Return an upper bound of the peak in bytes, and stop watching."""
        self._ended.set()
        self.look()
        return sum(self.marks.values()) - self.shared[max(self.shared)]

    def gpu_peak(self) -> int | None:
        """Return the largest allocation on the GPU in bytes; None without one."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def shared_bytes(rollups: Sequence[Mapping[str, int]]) -> int:
    """Return the bytes that forked processes share, minus one count of them, from their smaps_rollup sizes.

    Anonymous pages are shared only among these processes, so the kernel's proportional count is used. Mapped files are
    the same in all of them but also mapped by other processes, so only the largest count is kept.
    """
    files = [sizes["Rss"] - sizes["Anonymous"] for sizes in rollups]
    return sum(sizes["Anonymous"] - sizes["Pss_Anon"] for sizes in rollups) + sum(files) - max(files)


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
