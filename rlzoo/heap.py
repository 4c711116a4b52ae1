"""Memory that is freed stays with the process, for the next tensor.

glibc gives what is free at the end of its heap back to the system, and the system clears every page before it hands it
out again. On some virtual machines that takes 2 microseconds a page: a tensor of 6 MB then takes as long to get as a
product takes to fill it. So it is asked to keep everything; what is resident falls no more, its peak stays what it was.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
NEVER, FROM_BYTES = (1 << 31) - 1, 1 << 30


@cache
def keep() -> None:
    """Let the C library keep what is freed, for this process and those that it forks; elsewhere than glibc, nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, FROM_BYTES)
        mallopt(TRIM_THRESHOLD, NEVER)
