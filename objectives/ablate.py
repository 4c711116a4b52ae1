"""Ablations by name: `gspo[ratio=token,surrogate.high=0.2]` is gspo with two cells changed, from left to right.

A key is a column, or a field of the part in a column. Every ablation's name can be read back, so a change that is not
text is spelled out: the value `Clip(high=0.28)` becomes `surrogate=clip,surrogate.high=0.28`. Several shapers are
joined by `+`, and their fields are addressed by kind: `shape=kl+soft_overlong,shape.kl.coef=0.1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from advantages import Advantage, Part, Select, Shape
from advantages.names import nearest
from objectives.parts import KL, Aggregate, Correction, Entropy, Imitation, Ratio, Surrogate, Tokens, ValueLoss

T = TypeVar("T")

FAMILIES: dict[str, type[Part]] = {
    "select": Select,
    "shape": Shape,
    "advantage": Advantage,
    "ratio": Ratio,
    "surrogate": Surrogate,
    "tokens": Tokens,
    "correction": Correction,
    "aggregate": Aggregate,
    "kl": KL,
    "value": ValueLoss,
    "entropy": Entropy,
    "imitation": Imitation,
}
"""Column -> family, in order of execution."""


def split(name: str) -> tuple[str, dict[str, str]]:
    """Split a name: `gspo[ratio=token]` -> ("gspo", {"ratio": "token"}).

    Raises:
        ValueError: something between the brackets is not key=value, or the brackets are no pair at the end.
    """
    match = re.fullmatch(r"([^\[\]]*)\[(.*)\]", name)
    if match is None:
        if "[" in name or "]" in name:
            raise ValueError(f"{name!r}: an ablation ends with its changes in brackets: NAME[COLUMN=VALUE,...]")
        return name, {}
    changes: dict[str, str] = {}
    for cell in filter(None, match[2].split(",")):
        key, equals, value = (text.strip() for text in cell.partition("="))
        if not equals:
            raise ValueError(f"{name!r}: {cell.strip()!r} is not column=value")
        changes = _after(changes, {key: value})
    return match[1], changes


def join(name: str, changes: Iterable[str], table: Mapping[str, Any]) -> str:
    """Return the name of an ablation: `name` (possibly an ablation itself) with more keys set to `table`'s values."""
    base, earlier = split(name)
    keys = _after(earlier, dict.fromkeys(changes, ""))
    cells = [f"{key}={_written(table, key)}" for key in keys]
    return f"{base}[{','.join(cells)}]" if cells else base


def spell_out(changes: Mapping[str, object]) -> dict[str, object]:
    """Reduce every change to kinds and single fields, which can be written in a name."""
    plain: dict[str, object] = {}
    for key, value in changes.items():
        if key not in FAMILIES:
            plain = _after(plain, {key: value})
            continue
        cells = _cells(FAMILIES[key], value)
        plain = _after(plain, {key: "+".join(cell["kind"] for cell in cells) or "none"})
        for cell in cells:
            kind = cell["kind"]
            fields = FAMILIES[key].member(kind).model_fields
            given = {field: x for field, x in cell.items() if field not in fields or x != fields[field].default}
            path = f"{key}.{kind}" if key == "shape" else key
            plain |= {f"{path}.{field}": x for field, x in given.items() if field != "kind"}
    return plain


def apply(table: dict[str, Any], key: str, value: object) -> None:
    """Set one cell, or one field of the part in a cell, of an objective's dump.

    Raises:
        ValueError: no such column, kind or field (names the nearest), an empty cell, or an ambiguous shaper.
    """
    column, _, field = key.partition(".")
    if column not in FAMILIES:
        raise ValueError(f"an objective has no column {column!r}; {nearest(column, FAMILIES)}")
    cells = _cells(FAMILIES[column], table[column] if field else value)
    if field:
        cell, name = _addressed(key, cells, field)
        fields = FAMILIES[column].member(cell["kind"]).model_fields
        if name not in fields:
            raise ValueError(f"{column} {cell['kind']!r} has no field {name!r}; {nearest(name, fields)}")
        cell[name] = value
    if column == "shape":
        table[column] = cells
    elif len(cells) > 1:
        raise ValueError(f"column {column!r} takes one part, got {' and '.join(cell['kind'] for cell in cells)}")
    else:
        table[column] = cells[0] if cells else None


def _addressed(key: str, cells: list[dict[str, Any]], field: str) -> tuple[dict[str, Any], str]:
    """The cell that a key such as `shape.kl.coef` or `surrogate.high` means, and the field's name."""
    column = key.partition(".")[0]
    if not cells:
        raise ValueError(f"{key}: column {column!r} is empty; give it a part first, {column}=KIND")
    kind, dot, rest = field.partition(".")
    named = [cell for cell in cells if dot and cell["kind"] == kind]
    if named:
        return named[0], rest
    if len(cells) > 1:
        ways = " or ".join(f"{column}.{cell['kind']}.{field}" for cell in cells)
        raise ValueError(f"{key}: column {column!r} has several parts; say {ways}")
    return cells[0], field


def _cells(family: type[Part], value: object) -> list[dict[str, Any]]:
    """Parts given as values, kinds (joined by +), tables, or lists of these, as tables."""
    if value is None or (value == "none" and "none" not in family.members):
        return []
    if isinstance(value, str):
        return [{"kind": kind.strip()} for kind in value.split("+")]
    if isinstance(value, list | tuple):
        return [cell for one in cast("list[object]", value) for cell in _cells(family, one)]
    if isinstance(value, Part):
        return [value.spec()]
    if isinstance(value, dict) and "kind" in value:
        return [dict(cast("dict[str, Any]", value))]
    return [family.parse(cast("object", value)).spec()]  # none of these: parse says what was expected


def _after(earlier: Mapping[str, T], later: Mapping[str, T]) -> dict[str, T]:
    """Changes one after the other; what the later ones overwrite is dropped, a column's fields with the column."""
    kept = {
        old: value
        for old, value in earlier.items()
        if not any(old == new or old.startswith(f"{new}.") for new in later)
    }
    return kept | dict(later)


def _written(table: Mapping[str, Any], key: str) -> str:
    column, _, field = key.partition(".")
    cells = _cells(FAMILIES[column], table[column])
    if not field:
        return "+".join(cell["kind"] for cell in cells) or "none"
    cell, name = _addressed(key, cells, field)
    value = cell[name]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
