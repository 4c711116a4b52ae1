"""Differences between two configurations that should be equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError

UNSET = "not set"


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
