"""Error messages for settings: the place, the problem, and the nearest known name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from objectives import Objective, get
from rlzoo.errors import UserError, nearest

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], table: dict[str, Any], source: str) -> Model:
    """Return the settings in `table` as a `model`.

    Args:
        source: origin of the table, in words; begins the error message.

    Raises:
        UserError: one line per problem, with the full name of the setting and the nearest known one.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        lines = [_explain(model, dict(one)) for one in error.errors()]
        raise UserError(f"{source} cannot be used:\n" + "\n".join(f"  {line}" for line in lines)) from error


def find_objective(name: str | Objective) -> Objective:
    """Return an objective by name, or an ablation of one such as `gspo[ratio=token]`; an objective is itself.

    Raises:
        UserError: the name is unknown, with the nearest one, or the parts do not fit together.
    """
    if isinstance(name, Objective):
        return name
    try:
        return get(name)
    except ValueError as error:
        raise UserError(readable(error)) from error


def readable(error: ValueError) -> str:
    """Return an error's message, that of a pydantic error without pydantic's own apparatus."""
    if isinstance(error, ValidationError):
        return "; ".join(_explain(BaseModel, dict(one)) for one in error.errors())
    return str(error)


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
    if error["type"] in ("tuple_type", "list_type"):
        return f"{prefix}should be a list, such as [{json.dumps(str(error['input']))}], got {error['input']!r}"
    message = error["msg"].removeprefix("Input ")
    return f"{prefix}{message[:1].lower()}{message[1:]}, got {error['input']!r}"


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the names of the settings in the table at a place, [] where it is no table of fixed names."""
    for key in (key for key in location if not isinstance(key, int)):  # a place in a list of tables
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
