"""Which RL algorithm for language models is better, when, and why.

    import rlzoo

    result = rlzoo.compare(["grpo", "gspo"], task="sort", seeds=4)

Everything is imported when it is first used, so `import rlzoo` loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from rlzoo.api.version import version

        return version()
    raise AttributeError(f"module 'rlzoo' has no attribute {name!r}")
