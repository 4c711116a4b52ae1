"""jsonl:PATH: one JSON object per line, with a column for the prompt (text or chat messages) and one for the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks.registry import register_task
from rlzoo.tasks.rows import LinesOfFile, Picked, Survey
from rlzoo.tasks.table import TABLE_FIELDS, TableTask, as_answers, as_prompt, chat_settings, column

HELD_OUT = 0.1
"""Share of the rows that is the test split where none is given (our choice)."""


class JsonLines(TableTask):
    """Train on one file; test on `test_path`, or on `test_fraction` of it, chosen by a hash of the prompt."""

    kind = "jsonl"
    uses = TABLE_FIELDS | {"test_path", "test_fraction"}

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> JsonLines:
        if not argument:
            raise UserError("task 'jsonl': write jsonl:PATH, for instance jsonl:train.jsonl")
        if config.test_path is not None and config.test_fraction is not None:
            raise UserError(f"task {config.name!r}: give test_path or test_fraction, not both")
        rows, seen = read_rows(Path(argument).expanduser(), config)
        if config.test_path is not None:
            test, test_seen = read_rows(Path(config.test_path).expanduser(), config)
            return cls(config, rows, test, {"train": seen.size, "test": test_seen.size})
        held = seen.held_out(config.test_fraction or HELD_OUT)
        train, test = Picked(rows, np.flatnonzero(~held)), Picked(rows, np.flatnonzero(held))
        return cls(config, train, test, {"train": seen.size[~held], "test": seen.size[held]})


def read_rows(path: Path, config: TaskConfig) -> tuple[LinesOfFile, Survey]:
    """The objects of a file, which stay on the disk, and what is known of their prompts; blank lines are skipped.

    Raises:
        UserError: no such file, no rows, or a line (its number is given) that is not a JSON object with the columns.
    """
    seen = Survey()
    prompt_column, answer_column = config.prompt_column or "prompt", config.answer_column or "answer"
    chat, system = chat_settings(config)
    answer_needed = config.accuracy is None

    def look(row: dict[str, Any], where: str) -> None:
        prompt = column(row, prompt_column, "prompt_column", where)
        as_prompt(prompt, chat, system, where)
        if answer_needed or config.answer_column is not None:
            as_answers(column(row, answer_column, "answer_column", where), answer_needed, where)
        seen.add(prompt)

    rows = LinesOfFile(path, config.name, look)
    if not len(rows):
        raise UserError(f"task {config.name!r}: {path} has no rows")
    return rows, seen


register_task(JsonLines)
