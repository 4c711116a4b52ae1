"""Tasks over rows of data: columns become prompt, answer and the arguments of reward functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError, nearest
from rlzoo.tasks.base import Split, Task
from rlzoo.tasks.graders import GRADERS, REPORTED, grader, installed, right
from rlzoo.tasks.problem import Problem, Prompt
from rlzoo.tasks.rows import Rows, Survey

TABLE_FIELDS = frozenset(
    {"prompt_column", "answer_column", "demonstration_column", "suffix", "system", "chat", "grader"}
)


class TableTask(Task):
    """Problems are the rows of two tables; the verdict is a grader's, or that of the function named as `accuracy`."""

    at_hand = True

    def __init__(
        self, config: TaskConfig, train: Rows, test: Rows, sizes: dict[Split, NDArray[np.int64]] | None = None
    ) -> None:
        super().__init__(config.name, None, config.reward, config.accuracy)
        self._rows: dict[Split, Rows] = {"train": train, "test": test}
        self._sizes = sizes or {}
        self._prompt_column = config.prompt_column or "prompt"
        self._answer_column = config.answer_column or "answer"
        self._demonstration_column = config.demonstration_column
        self._answer_needed = config.accuracy is None or config.answer_column is not None
        if config.grader is not None and config.accuracy is not None:
            raise UserError(f"task {self.name!r}: grader and accuracy both decide what is right; give one of them")
        self._grade = grader(config.grader or "strict", f"task {self.name!r}")
        self._chat, self._system = chat_settings(config)
        self._suffix = config.suffix or ""
        for split, rows in self._rows.items():
            if len(rows) == 0:
                raise UserError(f"task {self.name!r}: the {split} split is empty")
            self.problem(split, 0)

    def size(self, split: Split) -> int:
        return len(self._rows[split])

    def doubtful(self, split: Split, most_bytes: int) -> Sequence[int]:
        """As for every task: of prompts whose size is known, the long ones and the empty ones."""
        if split not in self._sizes:
            return range(self.size(split))
        size = self._sizes[split]
        return np.flatnonzero((size > most_bytes) | (size == 0)).tolist()

    def problem(self, split: Split, index: int) -> Problem:
        """As for every task.

        Raises:
            UserError: the row has no such column, or its prompt is neither text nor chat messages.
        """
        if not 0 <= index < self.size(split):
            raise IndexError(f"task {self.name!r}: no {split} problem {index}; there are {self.size(split)}")
        row = dict(self._rows[split][index])
        place = f"{split} row {index}"
        where = f"task {self.name!r}, {place}"
        prompt = as_prompt(column(row, self._prompt_column, "prompt_column", where), self._chat, self._system, where)
        prompt = with_suffix(prompt, self._suffix)
        if self._demonstration_column is not None and split == "train":
            whole(str(column(row, self._demonstration_column, "demonstration_column", where)), where)
        columns = {name: value for name, value in row.items() if name != self._prompt_column}
        if self._demonstration_column == self._prompt_column:
            columns[self._prompt_column] = last_reply(row[self._prompt_column], where)
        if not self._answer_needed and self._answer_column not in row:
            return Problem(prompt, "", columns, place=place)
        answers = as_answers(column(row, self._answer_column, "answer_column", where), self._answer_needed, where)
        text = answers[0] if len(answers) == 1 else json.dumps(answers, ensure_ascii=False)
        return Problem(prompt, text, columns, answers, place)

    def demonstration(self, problem: Problem, rng: Random, clean: bool = False) -> str:
        if self._demonstration_column is None:
            return super().demonstration(problem, rng, clean)
        return str(problem.columns[self._demonstration_column])

    def grade(self, problem: Problem, completion: str) -> float:
        return right(self._grade, completion, problem.answers)

    def grades(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, list[float]]:
        """The accuracies of the same completions under every grader that is reported; none for rows without answers."""
        if not all(problem.answers for problem in problems):
            return {}
        pairs = list(zip(problems, completions, strict=True))
        names = [name for name in REPORTED if name != "math-verify" or installed()]
        return {name: [right(GRADERS[name], c, p.answers) for p, c in pairs] for name in names}


def column(row: Mapping[str, Any], name: str, setting: str, where: str) -> Any:
    """The value of a column that has to be there; `reward_model.ground_truth` is a field of a column of structs."""
    value: Any = row
    for key in [name] if name in row else name.split("."):
        known = key in value if isinstance(value, Mapping) else False
        if not known or value[key] is None:
            problem = f"column {name!r} is empty" if known else f"no column {name!r}"
            hint = nearest(key, value) if isinstance(value, Mapping) else "it is no struct"
            raise UserError(f"{where}: {problem}; set {setting} to one that is there: {hint}")
        value = value[key]
    return value


def as_answers(value: Any, needed: bool, where: str) -> tuple[str, ...]:
    """The answers that a column's value gives: a text, number or bool, or a list of these, any of which is right.

    Raises:
        UserError: anything else, such as a struct, and an answer is needed; without need there are none.
    """
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if values and all(isinstance(one, str | int | float) for one in values):
        return tuple(str(one) for one in values)
    if not needed:
        return ()
    hint = ""
    if isinstance(value, Mapping):
        hint = f"; name the field that holds it, such as COLUMN.{next(iter(value), 'FIELD')}"
    raise UserError(
        f"{where}: the answer is {str(value)[:60]!r}; it has to be text, a number or a bool, or a list of these, any "
        f"of which is right{hint}"
    )


def chat_settings(config: TaskConfig) -> tuple[bool, str | None]:
    """Whether text prompts become user messages, and the system message."""
    if config.system is not None and config.chat is False:
        raise UserError(
            f"task {config.name!r}: a system message needs a chat; remove chat = false or the system message"
        )
    return bool(config.chat) or config.system is not None, config.system


def as_prompt(value: Any, chat: bool, system: str | None, where: str) -> Prompt:
    """Text as it is or as a user message; chat messages with the system message before them.

    Raises:
        UserError: neither text nor a list of messages with the strings `role` and `content`.
    """
    if isinstance(value, str):
        whole(value, where)
        if not chat:
            return value
        value = [{"role": "user", "content": value}]
    if not isinstance(value, Sequence) or not value or not all(_is_message(m) for m in value):
        raise UserError(
            f"{where}: the prompt is {str(value)[:60]!r}; it has to be text or chat messages such as "
            '[{"role": "user", "content": "..."}]'
        )
    messages = [{"role": m["role"], "content": whole(m["content"], where)} for m in value]
    if messages[-1]["role"] == "assistant" and len(messages) > 1:
        del messages[-1]  # the reply that is asked for; see `last_reply`
    return messages if system is None else [{"role": "system", "content": system}, *messages]


def with_suffix(prompt: Prompt, suffix: str) -> Prompt:
    """A prompt with a text behind it, or behind the last of its messages."""
    if isinstance(prompt, str):
        return prompt + suffix
    return [*prompt[:-1], prompt[-1] | {"content": prompt[-1]["content"] + suffix}]


def last_reply(value: Any, where: str) -> str:
    """The assistant's reply that a list of messages ends with.

    Raises:
        UserError: it ends with something else.
    """
    if isinstance(value, str) or not value or value[-1].get("role") != "assistant":
        raise UserError(f"{where}: the messages do not end with a reply of the assistant, so there is none to imitate")
    return value[-1]["content"]


def whole(text: str, where: str) -> str:
    """The text, if it is made of whole characters.

    Raises:
        UserError: it has half of a surrogate pair, such as `\\ud83d` alone, which no tokenizer takes.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X}"
        raise UserError(f"{where}: character {error.start} is {half}, half of one: mend or remove it") from None
    return text


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def held_out(prompts: Iterable[Any], fraction: float) -> list[Split]:
    """The split of each row: the distinct prompts with the smallest hashes, rounded up, are the test split.

    Rows with the same prompt stay together; the order of the rows plays no part.
    """
    seen = Survey()
    for prompt in prompts:
        seen.add(prompt)
    return ["test" if test else "train" for test in seen.held_out(fraction).tolist()]
