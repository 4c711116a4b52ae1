"""Objectives by name. Registration is a function on a value.

Third parties register through the entry-point group `rlzoo.objectives`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from advantages.names import nearest
from objectives.ablate import split
from objectives.objective import Objective
from objectives.profiles import row

ENTRY_POINT_GROUP = "rlzoo.objectives"

_registry: dict[str, Objective] = {}
_pages: dict[str, str] = {}
_families: dict[str, str] = {}
_parents: dict[str, str] = {}


def register(
    objective: Objective, page: str | None = None, family: str | None = None, parent: str | None = None
) -> Objective:
    """Make an objective known by its name.

    Args:
        page: its text for `rlzoo show`, usually the module's docstring.
        family: its heading in `rlzoo list`; "more" by default.
        parent: name of the objective that its paper started from; ablations lead back to it.

    Raises:
        ValueError: the name is taken, or would be read as an ablation.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", objective.name):
        raise ValueError(f"objective name {objective.name!r} must be letters, digits and underscores")
    if objective.name in _registry and _registry[objective.name] != objective:
        raise ValueError(f"objective {objective.name!r} exists already; give yours another name")
    _registry[objective.name] = objective
    _pages[objective.name] = (page or _pages.get(objective.name, "")).strip()
    _families[objective.name] = family or _families.get(objective.name, "more")
    if parent is not None:
        _parents[objective.name] = parent
    return objective


def get(name: str) -> Objective:
    """The objective of a name. `gspo[ratio=token,surrogate.high=0.2]` is that objective with cells changed, and
    `gspo@trl` the one with the conventions of a framework (see `objectives.profiles`); both can be combined.

    Raises:
        ValueError: unknown name, framework, column or field; the message names the nearest.
    """
    _load_entry_points()
    base, changes = split(name)
    objective = _base(base)
    return objective.but(**changes) if changes else objective


def names() -> list[str]:
    """Names of all registered objectives, in order of registration."""
    _load_entry_points()
    return list(_registry)


def families() -> dict[str, list[str]]:
    """Family -> names of its registered objectives, both in order of registration."""
    result: dict[str, list[str]] = {}
    for name in names():
        result.setdefault(_families[name], []).append(name)
    return result


def parent(name: str) -> str | None:
    """Name of the objective that this one's paper started from, as registered; None if it was not given.

    For a framework's `loss@framework` it is the preset that the row changes.
    """
    base = split(get(name).name)[0]
    loss, _, framework = base.partition("@")
    return row(loss, framework).base if framework else _parents.get(base)


def page(name: str) -> str:
    """The objective's page: equation, paper, constants with their sources. An ablation has its base's page."""
    loss, _, framework = split(get(name).name)[0].partition("@")
    return _pages[row(loss, framework).base if framework else loss]


def _base(name: str) -> Objective:
    """The objective named before the brackets: a registered name, or a framework's `loss@framework`."""
    loss, at, framework = name.partition("@")
    if at:
        convention = row(loss, framework)
        return _registry[convention.base].but(**convention.changes, name=name)
    if name not in _registry:
        raise ValueError(f"unknown objective {name!r}; {nearest(name, _registry)}")
    return _registry[name]


def _load_entry_points() -> None:
    """Load each third party once; an entry point is an `Objective`, or a module that registers.

    Raises:
        TypeError: an entry point is something else.
    """
    waiting = _entry_points()
    while waiting:
        entry = waiting.pop(0)  # before it is loaded, because its module may call `get` itself
        where = f"entry point {entry.name!r} = {entry.value!r} of group {ENTRY_POINT_GROUP!r}"
        try:
            loaded = entry.load()
        except Exception as error:
            waiting.insert(0, entry)
            error.add_note(f"while loading {where}")
            raise
        if isinstance(loaded, Objective):
            register(loaded)
        elif not isinstance(loaded, ModuleType):
            raise TypeError(f"{where} is a {type(loaded).__name__}: expected an Objective or a module that registers")


@cache
def _entry_points() -> list[EntryPoint]:
    """Entry points that are not loaded yet."""
    return list(entry_points(group=ENTRY_POINT_GROUP))
