"""Settings from a TOML file with `--set a.b=c` over it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from objectives import Objective
from rlzoo.config.messages import Model, validate
from rlzoo.config.trust import refuse_code
from rlzoo.errors import UserError


def read_file(path: Path) -> dict[str, Any]:
    """Return the table in a TOML file, or in a JSON file such as a run folder's config.json.

    Raises:
        UserError: it is missing, unreadable, or not valid; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as error:
        raise UserError(f"{str(path)[:200]} cannot be read: {error.strerror}") from error
    except RecursionError:
        raise UserError(f"{path} is nested too deep") from None
    except ValueError as error:  # bad UTF-8, bad TOML and bad JSON are all of this kind
        raise UserError(f"{path} is not valid {'JSON' if path.suffix == '.json' else 'TOML'}: {error}") from error
    if not isinstance(table, dict):
        raise UserError(f"{path} holds no table of settings")
    return table


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """Read `a.b=c`: the path and the value. The value is a TOML value (`3`, `true`, `[1, 2]`) or else a bare string.

    Raises:
        UserError: there is no `=`, a name is empty, or a value begins like a list, table or string and is none.
    """
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise UserError(f"--set {text!r} is not of the form name=value, for instance --set train.steps=100")
    value = value.strip()
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except RecursionError:
        raise UserError(f"--set {text[:60]!r}...: the value is nested too deep") from None
    except ValueError as error:  # not TOML, or a number of more digits than Python reads
        if value[:1] in {"[", "{", '"', "'"}:
            raise UserError(f"--set {text!r}: the value is not valid TOML: {error}") from error
        return keys, value


def override(table: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `table` with each `a.b=c` put in, later ones over earlier ones.

    Raises:
        UserError: an assignment is malformed, or goes below something that is a value.
    """
    result = json.loads(json.dumps(table, default=str))
    for text in assignments:
        (*parents, last), value = parse_assignment(text)
        inner = result
        for depth, key in enumerate(parents):
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                where = ".".join(parents[: depth + 1])
                below = ".".join([*parents[depth + 1 :], last])
                hint = f"; write it as {where}={inner}[{below}={value}]" if where == "objective" else ""
                raise UserError(f"--set {text!r}: {where} is the value {inner!r} and has no settings below it{hint}")
        inner[last] = value
    return result


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another one put over it, tables within tables too."""
    result = dict(table)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = merge(below, value) if both else value
    return result


def settings(
    model: type[Model], file: Path | None, assignments: Sequence[str], given: Mapping[str, Any], trust: bool = False
) -> Model:
    """Return the settings of a command: options override the file, and --set overrides options.

    Args:
        given: option -> value; None: the option was not given.
        trust: allow running code that a run folder's config.json names (a TOML file is trusted: its user wrote it).

    Raises:
        UserError: the file cannot be read, an assignment is malformed, a setting is unknown or wrong, or names code
            that is not trusted (`rlzoo.config.trust`).
    """
    table = put_over(read_file(file) if file else {}, given)
    if isinstance(table.get("task"), str):
        table["task"] = {"name": table["task"]}  # so that --set task.reward=... goes together with --task sort
    typed = [key for key, value in given.items() if value is not None]
    source = " with ".join(
        filter(None, [str(file or ""), "the command line's settings" if typed or assignments or not file else ""])
    )
    made = validate(model, override(table, assignments), source)
    if file is not None and file.suffix == ".json" and not trust:
        refuse_code(made, file, [*typed, *(text.partition("=")[0].strip() for text in assignments)])
    return made


def put_over(table: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with options over it, but for those that are None. A task takes the place of the file's tasks."""
    typed = {key: value for key, value in given.items() if value is not None}
    return {key: value for key, value in table.items() if key != "tasks" or "task" not in typed} | typed


def split_sweeps(assignments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Separate the sweeps among --set (a column or a part's field, with several values) from settings.

    Raises:
        UserError: a column with one value, or with an empty one.
    """
    sweeps: dict[str, list[str]] = {}
    rest: list[str] = []
    for text in assignments:
        key, _, values = (part.strip() for part in text.partition("="))
        if key.partition(".")[0] not in Objective.columns:
            rest.append(text)
            continue
        values = values.removeprefix("[").removesuffix("]")
        sweeps[key] = [value.strip().strip("\"'") for value in values.split(",")]
        if len(sweeps[key]) < 2 or not all(sweeps[key]):
            raise UserError(
                f"--set {text!r} names a column of the objective: list two or more values to sweep, "
                f"--set {key}=A,B; to change it in all rows, ablate 'NAME[{key}={values}]'"
            )
    return sweeps, rest
