"""All tests: one thread (the tensors are tiny), and no way to the network unless a test asks for it by its marker."""

from __future__ import annotations

import os
import re
import sys

import pytest

# Both are read when a library is first imported, which conftest files further down do before pytest knows its options.
os.environ.setdefault("OMP_NUM_THREADS", "1")
OFFLINE_BY_US = "HF_HUB_OFFLINE" not in os.environ
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Open the network again for `pytest -m network`."""
    if not re.search(r"(?<!not )network", config.option.markexpr) or not OFFLINE_BY_US:
        return
    os.environ.pop("HF_HUB_OFFLINE")
    for library in ("huggingface_hub.constants", "datasets.config"):
        if library in sys.modules:
            sys.modules[library].HF_HUB_OFFLINE = False  # type: ignore[attr-defined]
