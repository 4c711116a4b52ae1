"""Objectives by name. Registration is a function on a value.

Third parties register through the entry-point group `rlzoo.objectives`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points

from advantages.names import nearest
from objectives.objective import Objective

ENTRY_POINT_GROUP = "rlzoo.objectives"

_registry: dict[str, Objective] = {}
_pages: dict[str, str] = {}


def register(objective: Objective, page: str | None = None) -> Objective:
    """Make an objective known by its name. `page` is its text for `rlzoo show`, usually the module's docstring.

    Raises:
        ValueError: the name is taken, or would be read as an ablation.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", objective.name):
        raise ValueError(f"objective name {objective.name!r} must be letters, digits and underscores")
    if objective.name in _registry and _registry[objective.name] != objective:
        raise ValueError(f"objective {objective.name!r} exists already; give yours another name")
    _registry[objective.name] = objective
    _pages[objective.name] = (page or "").strip()
    return objective


def get(name: str) -> Objective:
    """The objective of a name. `gspo[ratio=token,surrogate.high=0.2]` is that objective with cells changed.

    Raises:
        ValueError: unknown name, column or field; the message names the nearest.
    """
    _load_entry_points()
    match = re.fullmatch(r"(\w+)\[(.*)\]", name)
    base, cells = (match[1], match[2]) if match else (name, "")
    if base not in _registry:
        raise ValueError(f"unknown objective {base!r}; {nearest(base, _registry)}")
    changes: dict[str, str] = {}
    for cell in filter(None, cells.split(",")):
        column, equals, value = (text.strip() for text in cell.partition("="))
        if not equals:
            raise ValueError(f"{name!r}: {cell!r} is not column=value")
        changes[column] = value
    return _registry[base].but(**changes) if changes else _registry[base]


def names() -> list[str]:
    """Names of all registered objectives, in order of registration."""
    _load_entry_points()
    return list(_registry)


def page(name: str) -> str:
    """The objective's page: equation, paper, constants with their sources."""
    return _pages[get(name).name]


@cache
def _load_entry_points() -> None:
    """Load each third party once; an entry point is an `Objective`, or a module that registers."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        loaded = entry.load()
        if isinstance(loaded, Objective):
            register(loaded)
