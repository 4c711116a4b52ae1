"""Freed memory goes back to the system."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed_memory import resident
from rlzoo.model.cpu import malloc

pytestmark = pytest.mark.skipif(malloc._glibc() is None, reason="not glibc 2.33 or later")


@pytest.mark.parametrize(("worth", "given"), [(100e6, True), (1e12, False)])
def test_much_is_given_back_and_little_is_not(worth: float, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2000 tensors of 100 kB each the last one stays, and with it the heap that the others were in."""
    monkeypatch.setattr(malloc, "WORTH", worth)
    some = [torch.ones(25_000) for _ in range(2000)]
    last = some.pop()
    del some
    before = resident("VmRSS")
    malloc.give_back()
    assert (before - resident("VmRSS") > 150e6) is given
    del last
