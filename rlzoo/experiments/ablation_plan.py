"""The plan of an ablation: which rows to run between an objective and its parent, and which contrasts to take.

    ladder:          y(rung i) - y(rung i-1)         the parent, then one column after another, in order of execution
    leave-one-out:   y(all but c) - y(all)           the objective with one column set back
    sweep:           y(value i) - y(value i-1)       one field or column over several values
    factorial:       2^(1-k) sum_cells s_A y(cell)   s_A = product over the factors in A of +-1, k factors

y is a seed's final held-out accuracy, on every problem; `rlzoo.experiments.contrasts` judges the contrasts. With one
factor, the effect is the mean at the objective's cell minus the mean at the parent's. With two, the interaction is half
of the difference between one factor's effects at the two levels of the other: the usual definition for designs with two
levels.

Every row is an ordinary objective whose name can be parsed, so an ablation is a comparison and has the same folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Literal

import objectives
from objectives import Objective
from rlzoo.config.messages import find_objective, readable
from rlzoo.errors import UserError

Block = Literal["ladder", "leave-one-out", "sweep", "factorial"]


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of rows' outcomes that answers one question.

    Attributes:
        label: what changes, in words.
        weights: name of a row -> weight; they add up to 0.
        note: why several columns change at once, if they do.
    """

    block: Block
    label: str
    weights: Mapping[str, float]
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a block's table: the row, its label, and the index of the contrast shown beside it, or None."""

    row: str
    label: str
    contrast: int | None


@dataclass
class Plan:
    """Rows to run, each once, and the contrasts to take of them.

    Attributes:
        known: names that an equal row is to be given, whatever way it was made.
        lines: block -> its rows in order.
    """

    known: dict[Objective, str] = field(default_factory=dict)
    rows: list[Objective] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    lines: dict[Block, list[Line]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return rows and contrasts as JSON types."""
        return {
            "rows": [row.name for row in self.rows],
            "contrasts": [contrast.__dict__ for contrast in self.contrasts],
        }

    def add(
        self,
        objective: Objective,
        block: Block,
        label: str,
        against: str | None = None,
        change: str = "",
        note: str = "",
    ) -> str:
        """Add a row, unless an equal one is there, with its contrast to `against`; return the row's name."""
        name = self.known.setdefault(objective.but(name="unnamed"), objective.name)
        if name not in (row.name for row in self.rows):
            self.rows.append(objective.but(name=name))
        if against is not None:
            self.contrasts.append(Contrast(block, change, {name: 1.0, against: -1.0}, note))
        place = None if against is None else len(self.contrasts) - 1
        self.lines.setdefault(block, []).append(Line(name, label, place))
        return name


def plan(
    objective: Objective,
    parent: Objective | None,
    *,
    blocks: Sequence[Block],
    sweeps: Mapping[str, Sequence[str]] | None = None,
    factors: Sequence[Sequence[str]] = (),
) -> Plan:
    """Lay out an ablation.

    Args:
        parent: what to go back to; a sweep alone needs none.
        blocks: which questions to ask.
        sweeps: column or field -> values, as text.
        factors: of a factorial, each the columns that change together; the other columns are those of `objective`.

    Raises:
        UserError: nothing differs, a factor is no difference, or a cell's parts do not fit together.
    """
    made = Plan(known={one.but(name="unnamed"): one.name for one in (objective, parent) if one is not None})
    if parent is not None and not differing(objective, parent):
        raise UserError(f"{objective.name} and {parent.name} are one algorithm: there is nothing to ablate")
    for block in blocks:
        if block == "sweep":
            for key, values in (sweeps or {}).items():
                _sweep(made, objective, key, values)
            continue
        assert parent is not None
        if block == "ladder":
            _ladder(made, objective, parent)
        elif block == "leave-one-out":
            _leave_one_out(made, objective, parent)
        else:
            _factorial(made, objective, parent, factors)
    return made


def plan_of(
    objective: str | Objective,
    to: str | Objective | None = None,
    *,
    only: Block | None = None,
    sweeps: Mapping[str, Sequence[str]] | None = None,
    factors: Sequence[Sequence[str]] | None = None,
) -> Plan:
    """Lay out an ablation by names: ladder and leave-one-out by default.

    Args:
        to: the parent; None: the objective that the paper modified.
        only: one of the two blocks.
        sweeps, factors: see `plan`; either replaces ladder and leave-one-out.

    Raises:
        UserError: an unknown name, no parent to go back to, or options that do not go together; see `plan`.
    """
    chosen = find_objective(objective)
    blocks: list[Block] = [only] if only else ["ladder", "leave-one-out"]
    if sweeps or factors is not None:
        if only:
            raise UserError(f"only {only} chooses among ladder and leave-one-out; a sweep or a factorial is neither")
        asked: list[tuple[Block, bool]] = [("sweep", bool(sweeps)), ("factorial", factors is not None)]
        blocks = [block for block, wanted in asked if wanted]
    parent = None
    if blocks != ["sweep"]:
        to = to or objectives.parent(chosen.name)
        if to is None:
            raise UserError(f"{chosen.name} does not say what it set out from: name the other end with --to")
        parent = find_objective(to)
    elif to is not None:
        raise UserError("--to is the other end of a ladder; a sweep has none")
    return plan(chosen, parent, blocks=blocks, sweeps=sweeps, factors=factors or ())


def differing(objective: Objective, other: Objective) -> list[str]:
    """Return the columns in which two objectives differ, in order of execution."""
    return [column for column in Objective.columns if getattr(objective, column) != getattr(other, column)]


def moved(start: Objective, end: Objective, columns: Iterable[str]) -> Objective:
    """Return `start` with some columns as in `end`; where the kind stays, the name has only the fields that differ.

    Raises:
        ValueError: the parts do not fit together.
    """
    changes: dict[str, Any] = {}
    for column in columns:
        old, new = getattr(start, column), getattr(end, column)
        if old is None or new is None or isinstance(old, tuple) or type(old) is not type(new):
            changes[column] = new
        else:
            fields = [name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)]
            changes |= {f"{column}.{name}": getattr(new, name) for name in fields}
    return start.but(**changes) if changes else start


def _ladder(made: Plan, objective: Objective, parent: Objective) -> None:
    below = made.add(parent, "ladder", parent.name)
    there: list[str] = []
    for step, note in _steps(objective, parent):
        there += step
        label = told(parent, objective, step)
        rung = moved(parent, objective, sorted(there, key=Objective.columns.index))
        below = made.add(rung, "ladder", f"+ {label}", below, label, note)


def _steps(objective: Objective, parent: Objective) -> Iterator[tuple[list[str], str]]:
    """Yield the columns of each rung with the reason why they are several, or an empty text."""
    left = differing(objective, parent)
    done: list[str] = []
    while left:
        below = moved(parent, objective, done)
        step, note = _together(left[0], left, lambda columns, below=below: moved(below, objective, columns))
        yield step, note
        done += step
        left = [column for column in left if column not in step]


def _leave_one_out(made: Plan, objective: Objective, parent: Objective) -> None:
    whole = made.add(objective, "leave-one-out", objective.name)
    columns = differing(objective, parent)
    seen: list[list[str]] = []
    for column in columns:
        step, note = _together(column, columns, lambda chosen: moved(objective, parent, chosen))
        if step in seen:
            continue
        seen.append(step)
        label = told(objective, parent, step)
        made.add(moved(objective, parent, step), "leave-one-out", f"- {label}", whole, label, note)


def _together(
    column: str, columns: Sequence[str], build: Callable[[Sequence[str]], Objective]
) -> tuple[list[str], str]:
    """Return the fewest columns, `column` among them, that fit together when changed, and why they are several."""
    others = [other for other in columns if other != column]
    reason = ""
    for more in range(len(others) + 1):
        for chosen in combinations(others, more):
            step = sorted([column, *chosen], key=Objective.columns.index)
            try:
                build(step)
            except ValueError as error:
                reason = reason or readable(error)
                continue
            return step, f"{' and '.join(step)} change together: {reason}" if more else ""
    raise AssertionError("all columns together are an objective that exists")


def _sweep(made: Plan, objective: Objective, key: str, values: Sequence[str]) -> None:
    before: tuple[str | None, str] = None, ""
    rows: list[Objective] = []
    for value in values:
        try:
            row = objective.but(**{key: value})
        except ValueError as error:
            raise UserError(f"--set {key}={value}: {readable(error)}") from error
        if row in rows:
            raise UserError(f"--set {key}={','.join(values)}: {value} stands there twice")
        rows.append(row)
        name = made.add(row, "sweep", f"{key} = {value}", before[0], f"{key}: {before[1]} → {value}")
        before = name, value


def _factorial(made: Plan, objective: Objective, parent: Objective, factors: Sequence[Sequence[str]]) -> None:
    named, known = [column for factor in factors for column in factor], differing(objective, parent)
    for column in named:
        if named.count(column) > 1:
            raise UserError(f"--factorial: {column!r} stands there twice")
        if column not in known:
            ends = f"{objective.name} and {parent.name}"
            raise UserError(f"--factorial: {ends} do not differ in {column!r}, but in {', '.join(known)}")
    signs = list(product((-1, 1), repeat=len(factors)))
    cells: list[str] = []
    for levels in signs:
        back = [column for factor, level in zip(factors, levels, strict=True) if level < 0 for column in factor]
        back.sort(key=Objective.columns.index)
        try:
            row = moved(objective, parent, back)
        except ValueError as error:
            raise UserError(
                f"--factorial: with {' and '.join(back)} as in {parent.name} the parts do not fit: {readable(error)}. "
                "Join columns that only work together by a plus: advantage+value"
            ) from error
        label = ", ".join(
            f"{'+'.join(factor)} of {(objective if level > 0 else parent).name}"
            for factor, level in zip(factors, levels, strict=True)
        )
        cells.append(made.add(row, "factorial", label))
    for order in range(1, len(factors) + 1):
        for chosen in combinations(range(len(factors)), order):
            weights = {
                cell: math.prod(levels[i] for i in chosen) / 2 ** (len(factors) - 1)
                for cell, levels in zip(cells, signs, strict=True)
            }
            label = " x ".join("+".join(factors[i]) for i in chosen)
            made.contrasts.append(Contrast("factorial", label, weights))


def told(start: Objective, end: Objective, columns: Iterable[str]) -> str:
    """Return a change in words: `select: all → mixed`."""
    old, new = start.row(), end.row()
    return ", ".join(f"{column}: {old[column] or 'none'} → {new[column] or 'none'}" for column in columns)
