"""Folders of comparisons: where they go, what they hold, and the order in which tables and figures list their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import objectives
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.task import task_folder
from rlzoo.errors import UserError
from rlzoo.store.differences import refuse_differences
from rlzoo.store.run_folder import CONFIG, RunFolder

COMPARISON, TUNE = "comparison.json", "tune"
"""In the folder of a comparison: its configuration, and the folder of the search before it."""


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Return the run folders in and below some folders: by folder as given, then objectives in the table's order.

    Runs of a search are left out, unless a folder is in the search's own.

    Raises:
        UserError: there is none in one of them.
    """
    result: dict[Path, None] = {}
    for folder in folders:
        found = [path.parent for path in folder.rglob(CONFIG) if TUNE not in path.relative_to(folder).parts]
        if not found:
            raise UserError(f"there is no run (no {CONFIG}) in or below {folder}")
        names = {run: row_name(RunFolder.open(run).read_json(CONFIG)) for run in found}
        result |= dict.fromkeys(sorted(found, key=lambda run: (table_position(names[run]), str(run))))
    return list(result)


def row_name(stored: Mapping[str, Any]) -> str:
    """Return the name of the row that a run belongs to, from its stored configuration."""
    name = stored["objective"]["name"]
    return name if stored.get("control") is None else f"{name}+{stored['control']}"


def table_position(name: str) -> int:
    """Return the row of an objective in `rlzoo list`; ablations come after all registered ones."""
    names = objectives.names()
    return names.index(name) if name in names else len(names)


def refuse_taken(config: CompareConfig, folder: Path, resume: bool) -> None:
    """Raise UserError if a folder holds a comparison that is not to be resumed, or runs of other settings."""
    runs = [run for path in sorted(folder.glob(f"*/*/{CONFIG}")) if (run := RunFolder(path.parent)).began]
    refuse_other_kind(config, folder)
    if (folder / COMPARISON).exists() and runs and not resume:
        raise UserError(
            f"{folder} already holds a comparison. Continue it, or add objectives and seeds to it, with --resume; or "
            "name another folder with --out."
        )
    for run in runs:
        refuse_differences(run.path, config.shared_part(run.read_json(CONFIG)), config.shared())


def refuse_other_kind(config: CompareConfig, folder: Path) -> None:
    """Raise UserError if a folder holds a comparison over several tasks and this is on one, or the other way round."""
    if not (folder / COMPARISON).is_file():
        return
    several = bool(RunFolder(folder).read_json(COMPARISON).get("tasks"))
    if several != bool(config.tasks):
        kinds = {True: "over several tasks", False: "on one task"}
        raise UserError(
            f"{folder} holds a comparison {kinds[several]}, and this one is {kinds[not several]}: "
            "name another folder with --out."
        )


def default_folder(task: str) -> Path:
    """Return the default folder for runs on a task: runs/TASK, with `-` for characters that file names should lack."""
    return Path("runs") / task_folder(task)


def comparison_folder(config: CompareConfig) -> Path:
    """Return the default folder of a comparison: runs/TASK, over several tasks runs/TASK+TASK+..."""
    if not config.tasks:
        return default_folder(config.task.name)
    return default_folder("+".join(task.label for task in config.tasks))
