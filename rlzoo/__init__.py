"""Which RL algorithm for language models is better, when, and why.

    import rlzoo

    result = rlzoo.compare(["grpo", "gspo"], task="sort", seeds=4)
    result.summary, result.verdicts, result.plot(), result.report()

Everything is imported when it is first used, so `import rlzoo` loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlzoo.api.calls import ablate, compare, evaluate, load, reproduce, train
    from rlzoo.api.results import Ablation, Comparison, Run, TaskComparison
    from rlzoo.errors import UserError

    __version__: str

__all__ = [
    "Ablation",
    "Comparison",
    "Run",
    "TaskComparison",
    "UserError",
    "__version__",
    "ablate",
    "compare",
    "evaluate",
    "load",
    "reproduce",
    "train",
]

_HOMES = {
    "rlzoo.api.calls": ("ablate", "compare", "evaluate", "load", "reproduce", "train"),
    "rlzoo.api.results": ("Ablation", "Comparison", "Run", "TaskComparison"),
    "rlzoo.errors": ("UserError",),
}


def __getattr__(name: str) -> Any:
    """Import a name of the API on its first use."""
    if name == "__version__":
        return import_module("rlzoo.api.version").version()
    for home, names in _HOMES.items():
        if name in names:
            globals()[name] = value = getattr(import_module(home), name)
            return value
    raise AttributeError(f"module 'rlzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
