from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from benchmarks.speed_memory import resident
from rlzoo import heap
if sys.argv[1] == "keep":
    heap.keep()
together = [torch.ones(1 << 20) for _ in range(16)]
before = resident("VmRSS")
del together
print(before - resident("VmRSS"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's settings are glibc's")
def test_what_is_freed_stays_with_the_process() -> None:
    """16 tensors of 4 MiB are freed: 64 MiB, which glibc gives back at once unless it is asked to keep them."""
    given, kept = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout)
        for how in ("give", "keep")
    )
    assert kept < 1 << 20 < 1 << 25 < given
