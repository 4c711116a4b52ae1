"""Freed memory that the C library keeps, in pieces, goes back to the system.

Sampling and training ask for tensors of other sizes, so each finds the holes that the other left too small, and a
process takes what both need instead of the more of the two. The system takes back whole pages out of the middle of the
heap; using them again costs a page fault per 4 KiB. For glibc; others keep their heaps as they like.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

WORTH = 1 << 26
"""Bytes in the heap's holes, given back before or not, from which it is gone through: small runs are spared that."""


class _Usage(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is a glibc that can be asked (2.33 and later)."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not (hasattr(library, "malloc_trim") and hasattr(library, "mallinfo2")):
        return None
    library.mallinfo2.restype = _Usage
    return library


def give_back() -> None:
    """Give back what is free, if the heap has large holes."""
    library = _glibc()
    if library is not None and library.mallinfo2().fordblks > WORTH:
        library.malloc_trim(ctypes.c_size_t(0))
