"""The interface of what follows training runs: it learns which runs begin, then sees each of their records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from rlzoo.config.run import RunConfig
from rlzoo.training.launch import OnRecord

Watch: TypeAlias = Callable[[Mapping[str, RunConfig]], AbstractContextManager[OnRecord | None]]
"""Called with name -> run before each round of training; a search and its comparison are two rounds.

The context's value is called with (name, record) for every record, in the calling thread; None: nobody listens. An
error that it raises ends the training."""


def unwatched(runs: Mapping[str, RunConfig]) -> AbstractContextManager[OnRecord | None]:
    """Watch nothing."""
    return nullcontext()
