"""All tests: one thread (the tensors are tiny), and no way to the network unless a test asks for it by its marker."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when it is first imported


def pytest_configure(config: pytest.Config) -> None:
    if "not network" in config.option.markexpr:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
