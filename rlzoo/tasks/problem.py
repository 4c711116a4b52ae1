"""One item of a task: prompt, right answer, and the columns for graders and rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Prompt = str | list[dict[str, str]]
"""Text, or chat messages such as `[{"role": "user", "content": "2+2?"}]` that go through the model's chat template."""


@dataclass(frozen=True)
class Problem:
    """One item: `columns` is what reward functions receive, each as a keyword whose value is a list over the items."""

    prompt: Prompt
    answer: str
    columns: dict[str, Any] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    """Of data: the answers of which any is right; `answer` shows them."""
    place: str = field(default="", compare=False)
    """Of data, for messages: `train row 17`."""
