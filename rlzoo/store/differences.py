"""What a folder holds already: of another kind than a run, or a run of another configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError
from rlzoo.store.files import PARTIAL

UNSET = "not set"


def names_in(path: Path, config: str) -> list[str]:
    """Return the names in a folder. Raises `UserError` if there are some, and not a run's configuration."""
    found = (p.name for p in path.iterdir() if p.suffix != PARTIAL)
    present = sorted(name for name in found if not name.startswith("."))
    if config not in present and present:
        raise UserError(
            f"{path} is not empty and holds no run ({config} is missing; there is {present[0]}). "
            "Name another folder with --out."
        )
    return present


def refuse_differences(path: Path, stored: Any, asked: Any) -> None:
    """Raise UserError naming each setting that differs, with both values."""
    found = list(_differences(stored, asked))
    if not found:
        return
    rows = [f"  {key}: {there} in the folder, {here} asked for" for key, there, here in found]
    what_to_do = "Continue with the settings of the folder, or start a new run in another one with --out."
    if all(there == UNSET for _, there, _ in found):
        what_to_do = (
            "It was written by a version without these settings, which cannot be continued: report and evaluate read "
            "it; start a new run in another folder with --out."
        )
    raise UserError("\n".join([f"{path} holds a run with another configuration:", *rows, what_to_do]))


def _differences(stored: Any, asked: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*stored, *asked]):
            where = f"{prefix}.{key}" if prefix else key
            if key not in stored or key not in asked:
                yield where, *(UNSET if key not in side else json.dumps(side[key]) for side in (stored, asked))
            else:
                yield from _differences(stored[key], asked[key], where)
    elif stored != asked:
        yield prefix, json.dumps(stored), json.dumps(asked)
