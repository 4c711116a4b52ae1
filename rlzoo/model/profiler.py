"""Seconds per stage of the engine's work, and the share of padding in its forward passes.

    seconds[stage] = sum over its visits of (entry of the next stage - entry of this one)

There is one stage at a time, so the seconds add up to the elapsed time. The engine calls `enter` and `count`; without a
clock (`watch`) they do nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["prefill", "decode", "score", "forward", "backward", "optimizer", "rest"]


class StageClock:
    """Seconds per stage since construction. `wait` is called before every reading, to let a GPU finish.

    Attributes:
        real, computed: tokens of all forward passes without and with padding.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self._wait = wait
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._stage: Stage = "rest"
        self._since = time.perf_counter()
        self.real = self.computed = 0

    @property
    def padding(self) -> float:
        """Share of padding in the computed tokens."""
        return 1 - self.real / self.computed if self.computed else 0.0

    def enter(self, stage: Stage) -> None:
        """End the current stage and begin another."""
        self._wait()
        now = time.perf_counter()
        self._seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def read(self) -> dict[str, float]:
        """Return the seconds per stage up to now; the current stage continues."""
        self.enter(self._stage)
        return dict(self._seconds)


_clock: StageClock | None = None


@contextmanager
def watch(clock: StageClock) -> Iterator[None]:
    """Within: the engine of this process reports to this clock."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def enter(stage: Stage) -> None:
    """Report the beginning of a stage."""
    if _clock is not None:
        _clock.enter(stage)


def count(real: Callable[[], int], computed: int) -> None:
    """Report the tokens of a forward pass, without padding (evaluated only if there is a clock) and with it."""
    if _clock is not None:
        _clock.real += real()
        _clock.computed += computed
