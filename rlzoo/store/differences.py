"""Two configurations that should be one: which settings differ, with both values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError


def refuse_differences(path: Path, stored: Any, asked: Any) -> None:
    """Raise UserError naming each setting that differs, with both values."""
    rows = [f"  {key}: {there} in the folder, {here} asked for" for key, there, here in _differences(stored, asked)]
    if rows:
        raise UserError(
            f"{path} holds a run with another configuration:\n" + "\n".join(rows) + "\n"
            "Continue with the settings of the folder, or start a new run in another one with --out."
        )


def _differences(stored: Any, asked: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*stored, *asked]):
            where = f"{prefix}.{key}" if prefix else key
            if key not in stored or key not in asked:
                yield where, *("not set" if key not in side else json.dumps(side[key]) for side in (stored, asked))
            else:
                yield from _differences(stored[key], asked[key], where)
    elif stored != asked:
        yield prefix, json.dumps(stored), json.dumps(asked)
