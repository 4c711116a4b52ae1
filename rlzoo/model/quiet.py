"""Loading and saving without progress bars: those of transformers, and the plain tqdm of its GGUF reader."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Within: transformers draws no progress bar of its own. Its setting is restored at the end."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def nothing_on_stderr() -> Iterator[None]:
    """Within: Python's stderr is dropped, for calls that draw with tqdm itself. Errors are raised as ever."""
    with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):
        yield
