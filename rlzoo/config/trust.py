"""Trust in the code that settings name.

A reward function is imported and called. A path that the user typed, or wrote into a TOML file, is trusted. A path in
the config.json of a run folder was chosen by whoever made the folder: such code runs only with `--trust`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlzoo.errors import UserError


@dataclass(frozen=True)
class Code:
    """Marks a setting whose value names code: `reward: Annotated[str | None, Code()]`."""


def code_in(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (setting, import path) of all the code that settings name."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if any(isinstance(mark, Code) for mark in field.metadata):
            yield from ((prefix + name, path) for path in _texts(value))
        elif isinstance(value, BaseModel):
            yield from code_in(value, f"{prefix}{name}.")
        elif isinstance(value, tuple):
            for place, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from code_in(item, f"{prefix}{name}.{place}.")


def _texts(value: Any) -> Iterator[str]:
    """Every string in a value: of a list, a table, or by itself."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, BaseModel):
        yield from _texts(value.model_dump())
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, (list, tuple)):
        yield from (text for item in value for text in _texts(item))


def refuse_code(settings: BaseModel, source: str | Path, typed: Collection[str] = ()) -> None:
    """Refuse settings from a run folder that name code.

    Args:
        source: the file with the settings.
        typed: names of settings, or of tables of them, that the user overrode.

    Raises:
        UserError: one names code; the message has the file and the function.
    """
    for name, path in code_in(settings):
        if any(name == given or name.startswith(f"{given}.") for given in typed):
            continue
        module, _, function = path.rpartition(":")
        where = f"file {Path(module).expanduser().absolute()}" if module.endswith(".py") else f"module {module}"
        raise UserError(
            f"{source} names code to run: {name} = {path!r}, which is the function {function!r} of the {where}. "
            f"Whoever made the folder chose it. Read it, then allow it with --trust (in Python trust=True), or give "
            f"yours by --set {name}=... (in Python {name.rpartition('.')[2]}=...)"
        )
