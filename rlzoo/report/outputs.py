"""The picture of learning curves from run folders, at any moment: while runs train, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError
from rlzoo.experiments.folders import row_name, run_folders, table_position
from rlzoo.report import curves
from rlzoo.report.read import task_name
from rlzoo.store.run_folder import CONFIG, SUMMARY, RunFolder


def collect_curves(folders: Sequence[Path]) -> list[curves.Curves]:
    """Return the records of the runs in and below some folders, in the order of the table.

    Raises:
        UserError: there is no run in one of them.
    """
    runs = sorted(_configs(folders), key=lambda run: table_position(row_name(run[1])))
    return [curves.Curves(row_name(c), c["seed"], RunFolder.open(f).read_metrics(), _failed(f)) for f, c in runs]


def _failed(folder: Path) -> bool:
    return (folder / SUMMARY).is_file() and RunFolder(folder).read_json(SUMMARY)["state"] == "failed"


def _configs(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    return [(folder, RunFolder.open(folder).read_json(CONFIG)) for folder in run_folders(folders)]


def draw_curves(folders: Sequence[Path], out: Path, x: curves.Horizontal = "step", title: str = "") -> list[Path]:
    """Draw the runs in and below some folders into a file and, beside a PNG, an SVG of the same name.

    Args:
        title: empty: the runs' tasks.

    Returns the files.

    Raises:
        UserError: there is no run, none has a record yet, or a file cannot be written.
    """
    title = title or ", ".join(dict.fromkeys(task_name(config["task"]) for _, config in _configs(folders)))
    paths = [out, out.with_suffix(".svg")] if out.suffix == ".png" else [out]
    try:
        curves.draw(collect_curves(folders), paths, x=x, title=title)
    except (OSError, ValueError) as error:
        raise UserError(f"the curves could not be drawn into {out}: {error}") from error
    return paths
