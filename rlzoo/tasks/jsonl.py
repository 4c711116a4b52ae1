"""jsonl:PATH: one JSON object per line, with a column for the prompt (text or chat messages) and one for the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks.registry import register_task
from rlzoo.tasks.table import TABLE_FIELDS, TableTask, as_answers, as_prompt, chat_settings, column, held_out

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
        rows = read_rows(Path(argument).expanduser(), config)
        if config.test_path is not None:
            return cls(config, rows, read_rows(Path(config.test_path).expanduser(), config))
        prompts = [column(row, config.prompt_column or "prompt", "prompt_column", config.name) for row in rows]
        splits = held_out(prompts, config.test_fraction or HELD_OUT)
        train = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
        test = [row for row, split in zip(rows, splits, strict=True) if split == "test"]
        return cls(config, train, test)


def read_rows(path: Path, config: TaskConfig) -> list[dict[str, Any]]:
    """The objects of a file; blank lines are skipped.

    Raises:
        UserError: no such file, no rows, or a line (its number is given) that is not a JSON object with the columns.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"task {config.name!r}: cannot read {path}: {error}") from error
    rows = [_row(line, config, f"{path}, line {n}") for n, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(f"task {config.name!r}: {path} has no rows")
    return rows


def _row(line: str, config: TaskConfig, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object is needed, with a prompt and an answer; this is {line.strip()[:60]!r}")
    as_prompt(column(row, config.prompt_column or "prompt", "prompt_column", where), *chat_settings(config), where)
    if config.accuracy is None or config.answer_column is not None:
        as_answers(
            column(row, config.answer_column or "answer", "answer_column", where), config.accuracy is None, where
        )
    return row


register_task(JsonLines)
