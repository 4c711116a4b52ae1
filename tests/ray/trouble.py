"""What a worker of a cluster may meet: a slow reward, a part that kills its process or runs out of memory.

Workers import this module by name, as they do with the modules of a user's parts.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Literal

from advantages import Credit, Group, RolloutView

PAUSE = 0.25


def slowly(completions: list[str], **_: Any) -> list[float]:
    """Right is a first character with an even code, after a moment."""
    time.sleep(PAUSE)
    return [float(c[:1] != "" and ord(c[0]) % 2 == 0) for c in completions]


class Troubled(Group, kind="troubled"):
    """Group advantages; at step `when`, as long as the file `flag` is there, comes `trouble`."""

    flag: str
    when: int = 2
    trouble: Literal["killed", "memory"]

    def estimate(self, view: RolloutView) -> Credit:
        if view.step == self.when and Path(self.flag).exists():
            if self.trouble == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise MemoryError("no room for the advantages")
        return super().estimate(view)
