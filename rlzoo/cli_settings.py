"""Settings from a TOML file with `--set a.b=c` over it, and errors that say where, what, and which name was meant."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from rlzoo.errors import UserError, nearest

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


def validate(model: type[Model], table: dict[str, Any], source: str) -> Model:
    """Return the settings in `table` as a `model`.

    Args:
        source: where the table is from, in words; begins the error.

    Raises:
        UserError: what is wrong, one line each, with the full name of the setting and the nearest known one.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        lines = [_explain(model, dict(one)) for one in error.errors()]
        raise UserError(f"{source} cannot be used:\n" + "\n".join(f"  {line}" for line in lines)) from error


def readable(error: ValueError) -> str:
    """Return an error's message, that of a pydantic error without pydantic's own apparatus."""
    if isinstance(error, ValidationError):
        return "; ".join(_explain(BaseModel, dict(one)) for one in error.errors())
    return str(error)


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


def _explain(model: type[BaseModel], error: dict[str, Any]) -> str:
    location: tuple[int | str, ...] = error["loc"]
    where = ".".join(str(key) for key in location)
    prefix = f"{where}: " if where else ""
    if error["type"] == "extra_forbidden":
        elsewhere = _tables_with(model, str(location[-1]))
        if elsewhere:
            return f"{prefix}no such setting; did you mean {' or '.join(elsewhere)}?"
        siblings = _fields_at(model, location[:-1])
        return f"{prefix}no such setting" + (f"; {nearest(str(location[-1]), siblings)}" if siblings else "")
    if error["type"] == "missing":
        return f"{prefix}is missing"
    if error["type"] in ("value_error", "assertion_error"):
        return prefix + readable(error["ctx"]["error"])
    message = error["msg"].removeprefix("Input ")
    return f"{prefix}{message[:1].lower()}{message[1:]}, got {error['input']!r}"


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the names of the settings in the table at a place, [] where it is no table of fixed names."""
    for key in location:
        field = model.model_fields.get(str(key))
        inner = model_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _tables_with(model: type[BaseModel], setting: str) -> list[str]:
    """Return the full names of the settings of that name in the tables of `model`."""
    tables = {name: model_in(field.annotation) for name, field in model.model_fields.items()}
    return [f"{name}.{setting}" for name, inner in tables.items() if inner and setting in inner.model_fields]


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first pydantic model in a type annotation, None if it has none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := model_in(inner))), None)
