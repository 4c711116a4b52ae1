"""Published results run again: our curve over the reference points, and for each whether it is inside its tolerance."""

from __future__ import annotations

import importlib.util
import json
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.config.messages import validate
from rlzoo.config.published import Published, Reference
from rlzoo.config.run import RunConfig
from rlzoo.config.warmstart import WarmstartConfig
from rlzoo.errors import UserError, nearest
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.launch import train
from rlzoo.warmstart.train import warmstart

FOLDER = Path(__file__).parents[2] / "benchmarks" / "published"
RESULT = "reproduction.json"

OnRecord = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Point:
    """A published number beside ours; `found` is None where the run was not evaluated at that step."""

    reference: Reference
    found: float | None

    @property
    def outcome(self) -> str:
        """Return `inside`, `outside` or `not reached`."""
        if self.found is None:
            return "not reached"
        return "inside" if self.reference.inside(self.found) else "outside"


@dataclass(frozen=True)
class Reproduction:
    """What became of a published row: its points, and our curves by metric, each a list of (step, value)."""

    name: str
    row: Published
    folder: Path
    points: list[Point]
    curves: dict[str, list[tuple[int, float]]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        points = [{**p.reference.model_dump(), "found": p.found, "outcome": p.outcome} for p in self.points]
        return {
            "name": self.name,
            "title": self.row.title,
            "folder": str(self.folder),
            "points": points,
            "curves": self.curves,
            "tolerance": self.row.tolerance,
            "differs": list(self.row.differs),
        }


def rows(folder: Path | None = None) -> dict[str, Published]:
    """Read all published rows, by name.

    Raises:
        UserError: the folder is not there, as without a checkout, or a file is wrong.
    """
    folder = folder or FOLDER
    if not folder.is_dir():
        raise UserError(f"the published rows stand in the checkout, and there is no {folder}: clone the repository")
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def find(name: str, folder: Path | None = None) -> Published:
    """Return one row by name.

    Raises:
        UserError: there is none of this name.
    """
    known = rows(folder)
    if name not in known:
        raise UserError(f"no published row {name!r}; {nearest(name, known)}")
    return known[name]


def reproduce(
    name: str,
    out: Path,
    *,
    steps: int | None = None,
    data: Path | None = None,
    resume: bool = False,
    on_record: OnRecord | None = None,
    on_base: Callable[[int, float], None] = lambda step, loss: None,
) -> Reproduction:
    """Run a published row and compare.

    Args:
        steps: as many at most; later reference points are not reached.
        data: the folder that the row's data lie in, if it needs some.
        on_base: told of every step of the base model's training, if one is trained first.

    Raises:
        UserError: no such row, no data, or as `train`.
    """
    row = find(name)
    config = prepare(name, row, out, steps=steps, data=data, on_base=on_base)
    train(config, out / "run", resume=resume, on_record=on_record)
    made = compared(name, row, out)
    RunFolder(out).write_json(RESULT, made.as_dict())
    return made


def prepare(
    name: str,
    row: Published,
    out: Path,
    *,
    steps: int | None = None,
    data: Path | None = None,
    on_base: Callable[[int, float], None] = lambda step, loss: None,
) -> RunConfig:
    """Return the settings of a row's run: tasks registered, data found, base model trained."""
    if row.data is not None and data is None:
        raise UserError(f"{name} needs data: {row.data}; name the folder with --data")
    for file in row.imports:
        _import(FOLDER / file)
    places = {"base": str(out / "base")} | ({} if data is None else {"data": str(data)})
    config = row.config(steps, **places)  # wrong settings are found before anything is trained
    base = row.base()
    if base is not None:
        make_base(base, out / "base", on_base)
    return config


def make_base(base: WarmstartConfig, folder: Path, on_base: Callable[[int, float], None]) -> None:
    """Train a row's base model, unless it is there already.

    Raises:
        UserError: the one that is there was trained with other settings.
    """
    summary = folder / "warmstart.json"
    if not summary.is_file():
        warmstart(base, folder, on_base)
    elif json.loads(summary.read_text(encoding="utf-8"))["config"] != base.model_dump(mode="json"):
        raise UserError(f"the base model in {folder} was trained with other settings: name another folder with --out")


def compared(name: str, row: Published, out: Path) -> Reproduction:
    """Set the records of a run beside a row's reference points."""
    records = RunFolder.open(out / "run").read_metrics()
    metrics = dict.fromkeys(reference.metric for reference in row.reference)
    evaluated = [record for record in records if record["kind"] == "eval"]
    metrics |= dict.fromkeys(key for record in evaluated for key in record if key.startswith("accuracy_"))
    curves = {metric: curve(records, metric) for metric in metrics}
    points = [Point(one, found(one, dict(curves[one.metric]))) for one in row.reference]
    return Reproduction(name, row, out, points, curves)


def found(one: Reference, values: dict[int, float]) -> float | None:
    """Return our number for a reference, from the values of its metric by step; None if a step was not reached."""
    last = values.get(one.step)
    first = 0.0 if one.since is None else values.get(one.since)
    return None if last is None or first is None else last - first


def curve(records: list[dict[str, Any]], metric: str) -> list[tuple[int, float]]:
    """Return (step, value) of a metric: `train.reward` of training steps, anything else of evaluations."""
    of_training = metric.startswith("train.")
    kind, key = ("train", metric.removeprefix("train.")) if of_training else ("eval", metric)
    return [(r["step"], r[key]) for r in records if r["kind"] == kind and r.get(key) is not None]


def _read(path: Path) -> Published:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    return validate(Published, table, str(path))


def _import(path: Path) -> None:
    """Import a file that registers tasks, once."""
    name = f"published_{path.stem}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(f"there is no {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
