"""A pretended accelerator, for tests on a device that is not the CPU where there is none: see `pretend.cpp`.

torch has room for one device of somebody else's. It stays for the rest of the process, which for others then has an
accelerator: register it in a process of its own.
"""

from __future__ import annotations

import shutil
import types
from pathlib import Path

import torch

NAME = "pretend"
SOURCE = Path(__file__).with_suffix(".cpp")


def can_be_built() -> bool:
    """Whether what compiles it is there."""
    return all(shutil.which(program) for program in ("c++", "ninja"))


def register(build: Path) -> torch.device:
    """Compile it in a folder, half a minute the first time, and return the device."""
    from torch.utils.cpp_extension import load

    build.mkdir(parents=True, exist_ok=True)
    load("rlzoo_pretend", [str(SOURCE)], build_directory=str(build), extra_cflags=["-O1"])
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    vars(module).update(is_available=lambda: True, device_count=lambda: 1, current_device=lambda: 0)
    torch._register_device_module(NAME, module)
    return torch.device(NAME)
