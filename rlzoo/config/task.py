"""The settings of a task. A string is a config too: `sort`, `sort:hard`, `jsonl:train.jsonl`, `hf:openai/gsm8k`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, model_validator

from rlzoo.config.names import LONGEST
from rlzoo.config.settings import Settings
from rlzoo.config.trust import Code


class TaskConfig(Settings):
    """Every kind of task reads `name`, `reward` and `accuracy` and declares its other settings (`Task.uses`).

    None means not set. Setting a field that the kind does not read is an error.
    """

    name: str
    """`kind` or `kind:argument`; depending on the kind, the argument is a level, a path or a name."""
    level: str | None = None
    """Difficulty of a procedural task: easy, medium, hard, or mixed."""
    reward: Annotated[str | None, Code()] = None
    """Import path of the reward function (`package.module:function` or `file.py:function`); None: the accuracy."""
    accuracy: Annotated[str | None, Code()] = None
    """Import path of the function that decides what is right; None: the task's own verdict."""

    prompt_column: str | None = None
    """Column with the prompt, text or chat messages; None: `prompt`."""
    answer_column: str | None = None
    """Column with the right answer, or a list of right ones; `reward_model.ground_truth` is a field of a struct. None:
    `answer`."""
    grader: str | None = None
    """The grader of responses to rows of data: strict (the final answer), flexible (the last number),
    math-verify, or gsm8k (as verl); None: strict. Not together with `accuracy`."""
    demonstration_column: str | None = None
    """Column with a response to imitate, for objectives that learn from demonstrations."""
    suffix: str | None = None
    """Text appended to every prompt, such as how to write the answer; in a chat, to its last message."""
    system: str | None = None
    """System message before every prompt; it makes a text prompt a chat."""
    chat: bool | None = None
    """True: send a text prompt as a user message, through the model's chat template. None: as plain text."""
    subset: str | None = None
    """Configuration of a Hub data set, such as `main` of gsm8k."""
    train_split: str | None = None
    """Split to train on; None: `train`."""
    test_split: str | None = None
    """Split to test on; None: `test`. Not together with `test_fraction`."""
    test_path: str | None = None
    """JSON-lines file to test on; None: `test_fraction` of the training file is held out."""
    test_fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training data held out as the test split, chosen by a hash of the prompt."""
    options: dict[str, Any] | None = None
    """Settings of the generator behind the task (reasoning-gym: the data set's own configuration)."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """The name with the level, `add:hard`."""
        return self.name if self.level is None else f"{self.name}:{self.level}"

    def given(self) -> frozenset[str]:
        """The names of the fields that are set."""
        return frozenset(name for name in type(self).model_fields if getattr(self, name) is not None)


def split_tasks(text: str) -> str | list[str]:
    """Return the tasks that `add:medium,sort:hard` names; the text itself if it names one.

    A comma divides where a name of letters, digits, `_` and `-` follows, alone or before a colon; so a path may have
    commas.
    """
    parts = re.split(r",(?=\s*[A-Za-z][\w-]*\s*(?:[:,]|$))", text)
    return text if len(parts) == 1 else [part.strip() for part in parts]


def task_folder(label: str) -> str:
    """Return the name of a task's folder: its label with `-` for what no file name should have."""
    return re.sub(r"[^\w.+-]+", "-", label).strip("-.")[:LONGEST]
