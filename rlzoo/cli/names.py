"""`rlzoo list parts`, `rlzoo list tasks`, `rlzoo list settings`.

Names, defaults and descriptions are read from the classes and the docstrings below their fields.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from objectives import Objective
from objectives.ablate import FAMILIES
from rlzoo.config.messages import model_in

Kind = Literal["parts", "tasks", "settings"]
LONGEST_DEFAULT = 20  # characters, on the screen; JSON has them whole

ABOUT = {
    "objective": "An objective from rlzoo list, or an ablation of one.",
    "objectives": "A list of these, or all.",
    "seed": "Seed of prompts, noise and first adapter.",
}


def parts() -> list[dict[str, Any]]:
    """Return every part by column: its kind, its fields with their defaults, and what it computes."""
    return [
        {"column": column, "kind": kind, "fields": defaults(part), "about": first_paragraph(part)}
        for column in FAMILIES
        for kind, part in FAMILIES[column].members.items()
    ]


def tasks() -> list[dict[str, Any]]:
    """Return every kind of task: how it is named, which settings it takes, and what it is."""
    from rlzoo.tasks import task_kinds

    rows = []
    for kind, task in sorted(task_kinds().items(), key=lambda item: "level" not in item[1].uses):
        text = first_paragraph(inspect.getmodule(task)) or first_paragraph(task)
        form, _, about = text.partition(": ")  # `sort: write ...`, `jsonl:PATH: one ...`
        if form.partition(":")[0] != kind:
            form, about = kind, text
        levels = [*getattr(task, "levels", ()), "mixed"] if "level" in task.uses else []
        taken = sorted({"reward", "accuracy", *task.uses})
        rows.append({"kind": kind, "form": form, "levels": levels, "settings": taken, "about": about})
    return rows


def settings() -> list[dict[str, Any]]:
    """Return every setting of train and compare, and of warmstart: full name, default, and what it means."""
    from rlzoo.config.comparison import CompareConfig
    from rlzoo.config.run import RunConfig, SharedConfig
    from rlzoo.config.warmstart import WarmstartConfig

    shared = [row["name"] for row in _leaves(SharedConfig)]
    rows: list[dict[str, Any]] = []
    for command, model in (("train", RunConfig), ("compare", CompareConfig)):
        rows += [{"commands": [command], **row} for row in _leaves(model) if row["name"] not in shared]
    rows += [{"commands": ["train", "compare", "evaluate"], **row} for row in _leaves(SharedConfig)]
    return rows + [{"commands": ["warmstart"], **row} for row in _leaves(WarmstartConfig)]


def print_names(console: Console, kind: Kind) -> None:
    """Print one of the three lists."""
    {"parts": _print_parts, "tasks": _print_tasks, "settings": _print_settings}[kind](console)


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    """Return field -> default; None for a field that has to be given."""
    values = {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}
    return {name: None if value is PydanticUndefined else value for name, value in values.items()}


def first_paragraph(thing: object) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return flowing((inspect.getdoc(thing) or "").split("\n\n")[0])


def flowing(text: str) -> str:
    """Return text on one line."""
    return " ".join(text.split())


def _leaves(model: type[BaseModel], prefix: str = "", preset: BaseModel | None = None) -> Iterator[dict[str, Any]]:
    """Yield every setting of a model and of those in it; `preset` has the defaults where an outer model sets them."""
    values = defaults(model) if preset is None else {name: getattr(preset, name) for name in model.model_fields}
    for name, field in model.model_fields.items():
        inner, value = model_in(field.annotation), values[name]
        if inner is not None and not issubclass(inner, Objective) and not isinstance(value, tuple):
            yield from _leaves(inner, f"{prefix}{name}.", value)
            continue
        row = {"name": prefix + name, "default": value, "required": field.is_required() and value is None}
        choices = [choice for choice in _choices(field.annotation) if choice is not None]
        yield row | {"choices": choices, "about": flowing(field.description or ABOUT.get(name, ""))}


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def _print_parts(console: Console) -> None:
    grid = _grid("column", "part", "settings", "")
    previous = ""
    for row in parts():
        fields = Text("\n".join(f"{name} = {toml(value)}" for name, value in row["fields"].items()))
        column = "" if row["column"] == previous else row["column"]
        grid.add_row(Text(column, style="bold"), row["kind"], fields, Text(row["about"]))
        previous = row["column"]
    console.print(grid)
    note(console, "An ablation changes cells: 'grpo[kl=none]', 'grpo[surrogate.high=0.28,aggregate=token_mean]'.")


def _print_tasks(console: Console) -> None:
    grid = _grid("task", "settings", "")
    for row in tasks():
        levels = "level = " + ", ".join(row["levels"]) if row["levels"] else ""
        names = [name for name in row["settings"] if name not in ("level", "reward", "accuracy")]
        grid.add_row(
            Text(row["form"], style="bold"), Text("\n".join(filter(None, [levels, *names]))), Text(row["about"])
        )
    console.print(grid)
    note(
        console, "Every task takes reward and accuracy too: functions of yours, as module:function or file.py:function."
    )


def _print_settings(console: Console) -> None:
    grid = _grid("setting", "default", "")
    previous: list[str] = []
    for row in settings():
        if row["commands"] != previous:
            grid.add_row("", "", "")
            grid.add_row(Text("rlzoo " + ", ".join(row["commands"]), style="bold"), "", "")
        previous = row["commands"]
        default = "to be given" if row["required"] else toml(row["default"])
        choices = f"One of {', '.join(row['choices'])}." if row["choices"] else ""
        about = Text(" ".join(filter(None, [row["about"], choices])))
        grid.add_row(row["name"], Text(default if len(default) <= LONGEST_DEFAULT else "{...}"), about)
    console.print(grid)
    note(console, "Given as --set train.steps=100, or in the file of --config as steps = 100 below [train].")


def note(console: Console, text: str) -> None:
    """Print a line below a table."""
    console.print(Text(text, style="dim"))


def _grid(*headings: str) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    return grid


def toml(value: Any) -> str:
    """Write a value as TOML has it; None, which TOML has not, as none."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(item)}' for key, item in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
