"""Peak memory of this process, and of the GPU: from a chosen moment on."""

from __future__ import annotations

from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): sets the high-water mark back to what is resident now


def resident(field: str) -> int:
    """A field of this process's status in bytes: VmRSS, resident now, or VmHWM, its high-water mark.

    Not `getrusage`, whose mark a process inherits from the one that started it. Linux only.
    """
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{STATUS} has no {field}")


class PeakMemory:
    """Watches from its making on; `loaded` is what was resident then."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        CLEAR.write_text(RESET_PEAK)
        self.loaded = resident("VmRSS")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> int:
        return resident("VmHWM")

    def gpu_peak(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
