"""Settings from a TOML file with `--set a.b=c` over it, and errors that say where, what, and which name was meant."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel

from rlzoo.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


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
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
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
    except tomllib.TOMLDecodeError as error:
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


def import_module(name: str) -> ModuleType:
    """Import a module of the working folder or an installed one, by name or by the path of its file.

    Raises:
        UserError: it is not there, or fails while it is imported.
    """
    path = Path(name)
    if path.suffix == ".py":
        folder, module = str(path.parent.resolve()), path.stem
    else:
        folder, module = str(Path.cwd()), name
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a module of the user's raises
        raise UserError(f"--import {name}: {type(error).__name__}: {error}") from error
