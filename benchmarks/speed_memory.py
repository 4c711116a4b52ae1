"""Peak memory of this process and those that it forks, and of the GPU: from a chosen moment on.

    peak = sum over processes of the high-water mark of each - what they share, counted once

The kernel keeps high-water marks, so no peak of a process goes unseen between two looks; but not of the sum. That all
processes had theirs at one moment is the worst case, so the peak of several is an upper bound; of one it is exact.
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
RESET_PEAK = "5"  # proc(5): sets the high-water mark back to what is resident now
BETWEEN_READINGS = 0.5
"""Seconds between two readings of the marks, which take 0.1 ms per process."""


def fields(path: Path) -> dict[str, int]:
    """The sizes in a file of /proc in bytes: of status, VmRSS (resident now), VmHWM (its high-water mark), and others.

    Not `getrusage`, whose mark a process inherits from the one that started it. Linux only.
    """
    lines = [line.split() for line in path.read_text().splitlines()]
    return {name.removesuffix(":"): 1024 * int(size[0]) for name, *size in lines if size[1:] == ["kB"]}


def resident(name: str) -> int:
    """A size of this process's status in bytes."""
    return fields(STATUS)[name]


class PeakMemory:
    """Watches from its making on, until it is asked for the peak; `loaded` is what was resident at first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        CLEAR.write_text(RESET_PEAK)
        self.loaded = resident("VmRSS")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.marks = {os.getpid(): self.loaded}
        """Process -> its high-water mark in bytes, as last seen; those that have ended too."""
        self.shared: dict[int, int] = {1: 0}
        """Number of processes -> bytes that so many shared, less one count of them: the least that was seen, as pages
        are shared until somebody writes there."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(BETWEEN_READINGS):
            self._read_marks()

    def look(self) -> None:
        """Read the marks, and what is shared. Seldom while something is timed: the kernel goes through all pages for
        it, 20 ms per process of 600 MB, in which the process has no core or gets no memory."""
        with suppress(OSError, KeyError):  # a process may end under the eyes
            pids = self._read_marks()
            if len(pids) > 1:
                shared = shared_bytes([fields(PROC / str(pid) / "smaps_rollup") for pid in pids])
                self.shared[len(pids)] = min(shared, self.shared.get(len(pids), shared))

    def _read_marks(self) -> list[int]:
        """Read the high-water marks of all processes; returns these."""
        pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children() if process.pid)]
        for pid in pids:  # the kernel's counts lag by some pages, and its mark by others
            with self._lock, suppress(OSError, KeyError):
                self.marks[pid] = max(fields(PROC / str(pid) / "status")["VmHWM"], self.marks.get(pid, 0))
        return pids

    def peak(self) -> int:
        """Bytes, at most; ends the watch."""
        self._ended.set()
        self.look()
        return sum(self.marks.values()) - self.shared[max(self.shared)]

    def gpu_peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def shared_bytes(rollups: Sequence[Mapping[str, int]]) -> int:
    """What processes forked from one of them hold together, less one count of it; of the sizes in smaps_rollup.

    Their anonymous pages are shared by nobody else, so the kernel's proportional count tells. Their files are the same,
    but mapped by strangers too, so each but the one with most is taken to hold none of its own.
    """
    files = [sizes["Rss"] - sizes["Anonymous"] for sizes in rollups]
    return sum(sizes["Anonymous"] - sizes["Pss_Anon"] for sizes in rollups) + sum(files) - max(files)


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
