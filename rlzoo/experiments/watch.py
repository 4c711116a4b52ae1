"""Who watches runs that train: told which runs before they begin, then of every record of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from rlzoo.config.run import RunConfig
from rlzoo.training.launch import OnRecord

Watch: TypeAlias = Callable[[Mapping[str, RunConfig]], AbstractContextManager[OnRecord | None]]
"""Called with name -> run for each round of training, a search and its comparison being two. What the context gives is
called with (name, record) for every record, in the calling thread. What it raises ends the training."""


def unwatched(runs: Mapping[str, RunConfig]) -> AbstractContextManager[OnRecord | None]:
    """Watch nothing."""
    return nullcontext()
