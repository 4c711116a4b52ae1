"""Where the engine's time goes: it says what it enters, and whoever watches reads how long it stayed.

    seconds[stage] = sum over its visits of (entry of the next stage - entry of this one)

One stage at a time, so the seconds add up to the whole. It also says how many of the tokens of a pass were padding.
Nobody watching, `enter` and `count` do nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Stage = Literal["prefill", "decode", "score", "forward", "backward", "optimizer", "rest"]


class StageClock:
    """Seconds per stage since it was made. `wait` is called before the clock is read: a GPU has to finish first."""

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self._wait = wait
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._stage: Stage = "rest"
        self._since = time.perf_counter()
        self.real = self.computed = 0

    @property
    def padding(self) -> float:
        """Share of the computed tokens that were padding."""
        return 1 - self.real / self.computed if self.computed else 0.0

    def enter(self, stage: Stage) -> None:
        """End the stage that is under way and begin another, or the same one again."""
        self._wait()
        now = time.perf_counter()
        self._seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def read(self) -> dict[str, float]:
        """Seconds per stage up to now; the stage under way goes on."""
        self.enter(self._stage)
        return dict(self._seconds)


_clock: StageClock | None = None


@contextmanager
def watch(clock: StageClock) -> Iterator[None]:
    """Within: the engine of this process reports to the clock."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def enter(stage: Stage) -> None:
    """Say that the engine does this from now on."""
    if _clock is not None:
        _clock.enter(stage)


def count(real: Callable[[], int], computed: int) -> None:
    """Say how many tokens a pass of the model had (asked only if somebody watches), and how many with padding."""
    if _clock is not None:
        _clock.real += real()
        _clock.computed += computed
