"""Run folders -> the data of a report. Only files are read, so a report can be made anywhere, at any moment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import objectives
from rlzoo.errors import UserError
from rlzoo.experiments.plan import Declared, read_plan
from rlzoo.report.series import Curves
from rlzoo.stats.scores import Trace
from rlzoo.store.check import check_records, lost_runs
from rlzoo.store.run_folder import CONFIG, ENVIRONMENT, STATE, SUMMARY, RunFolder, read_lines

COMPARISON = "comparison.json"
OWN = ("objective", "seed", "control")  # settings that are a run's own, not its comparison's

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ReadRun:
    """One run, finished or still training.

    Attributes:
        algorithm: the name of its row in the comparison.
        summary: its outcome; None before its end.
        train: metric -> [steps], nan where a step has no value; includes `step` and the counters of costs.
        records: of metrics.jsonl, in order.
    """

    path: Path
    algorithm: str
    seed: int
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any] | None
    train: dict[str, Array]
    records: list[dict[str, Any]]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Return the records of evaluations on the validation split, in order."""
        return [record for record in self.records if record["kind"] == "eval"]

    @property
    def curves(self) -> Curves:
        """Return the run as charts take it."""
        return Curves(self.algorithm, self.seed, self.records, self.state == "failed")

    @property
    def trace(self) -> Trace:
        """Return the run as statistics take it."""
        ended = (self.summary or {}).get("ended")
        return Trace(self.algorithm, self.seed, self.records, self.state == "failed", ended)

    @property
    def steps(self) -> int:
        """Return its number of steps by the settings."""
        return self.config["train"]["steps"]

    @property
    def step(self) -> int:
        """Return how many steps it has made."""
        return int(self.train["step"][-1]) if "step" in self.train else 0

    @property
    def state(self) -> str:
        """Return `done`, `failed`, `training`, or `waiting`."""
        if self.summary is not None:
            return self.summary["state"]
        return "training" if self.train or self.evaluations or (self.path / STATE).exists() else "waiting"


def task_name(task: Mapping[str, Any]) -> str:
    """Return the name of a task as it is stored, with its level."""
    level = task.get("level")
    return task["name"] if level is None or ":" in task["name"] else f"{task['name']}:{level}"


@dataclass(frozen=True)
class Study:
    """The runs of a report.

    Attributes:
        stored: comparison.json, written when a comparison begins; None for a single run.
        contrasts: of an ablation that has ended, as in summary.json.
        declared: plan.json; None where a folder has none.
        left_out: a line per run that is missing here, with the reason.
    """

    folder: Path
    runs: Sequence[ReadRun]
    stored: dict[str, Any] | None
    contrasts: Sequence[Mapping[str, Any]]
    declared: Declared | None = None
    left_out: Sequence[str] = ()

    @property
    def task(self) -> str:
        """Return the task's name with its level."""
        return task_name(self.runs[0].config["task"])

    @property
    def algorithms(self) -> list[str]:
        """Return the names of the rows, in order."""
        return list(dict.fromkeys(run.algorithm for run in self.runs))

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def ended(self) -> list[ReadRun]:
        return [run for run in self.runs if run.summary is not None]

    @property
    def progress(self) -> float:
        """Return the share of all steps that are done; a run that has ended counts as done."""
        done = sum(run.steps if run.summary is not None else run.step for run in self.runs)
        return done / sum(run.steps for run in self.runs)

    def of(self, algorithm: str) -> list[ReadRun]:
        """Return the runs of one row."""
        return [run for run in self.runs if run.algorithm == algorithm]


def read_study(folder: Path, metrics: Sequence[str]) -> Study:
    """Read a comparison (OBJECTIVE/seedN below `folder`), or a folder that is a run itself.

    Args:
        metrics: which of the training metrics to keep.

    Raises:
        UserError: there is no run, or the runs are of different tasks.
    """
    paths = sorted(path.parent for path in folder.glob(f"*/*/{CONFIG}"))
    left_out: list[str] = []
    if (folder / CONFIG).is_file():
        runs = [_read_run(folder, None, metrics)]
    elif paths:
        runs = list(_whole_runs(paths, metrics, left_out))
    else:
        raise UserError(
            f"there is no run in {folder}: a report is made of a comparison's folder (with OBJECTIVE/seedN/{CONFIG} in "
            "it) or of one run's folder"
        )
    if not runs:
        raise UserError(f"no run in {folder} can be read:\n" + "\n".join(f"  {reason}" for reason in left_out))
    tasks = sorted({run.config["task"]["name"] for run in runs})
    if len(tasks) > 1:
        raise UserError(f"{folder} holds runs of several tasks ({', '.join(tasks)}): name the folder of one comparison")
    stored = RunFolder(folder).read_json(COMPARISON) if (folder / COMPARISON).is_file() else None
    outcome = RunFolder(folder).read_json(SUMMARY) if stored and (folder / SUMMARY).is_file() else {}
    order = [objective["name"] for objective in stored["objectives"]] if stored else []
    order += [name for name in objectives.names() if name not in order]
    order += sorted({run.algorithm for run in runs} - set(order))
    left_out += lost_runs(folder, stored or {}, {(run.algorithm, run.seed) for run in runs}, left_out)
    runs.sort(key=lambda run: (order.index(run.algorithm), run.seed))
    return Study(folder, runs, stored, outcome.get("ablation", []), read_plan(folder), left_out)


def _whole_runs(paths: Sequence[Path], metrics: Sequence[str], left_out: list[str]) -> Iterator[ReadRun]:
    """Yield the undamaged runs; append the others to `left_out`, with the reason."""
    for path in paths:
        name = f"{path.parent.name}/{path.name}"
        try:
            run = _read_run(path, path.parent.name, metrics)
            problems = check_records(RunFolder(path).read_metrics(), run.summary)
        except UserError as error:
            problems = [str(error)]
        if problems:
            left_out.append(f"{name}: {problems[0]}")
        else:
            yield run


def _read_run(path: Path, algorithm: str | None, metrics: Sequence[str]) -> ReadRun:
    folder = RunFolder(path)
    config = folder.read_json(CONFIG)
    records = read_lines(path / "metrics.jsonl")
    train = [
        [np.nan if record.get(key) is None else record[key] for key in metrics]
        for record in records
        if record["kind"] == "train"
    ]
    columns = dict(zip(metrics, np.asarray(train, dtype=np.float64).T, strict=True)) if train else {}
    return ReadRun(
        path=path,
        algorithm=algorithm or "+".join(filter(None, (config["objective"]["name"], config.get("control")))),
        seed=config["seed"],
        config=config,
        environment=folder.read_json(ENVIRONMENT) if (path / ENVIRONMENT).is_file() else {},
        summary=folder.read_json(SUMMARY) if (path / SUMMARY).is_file() else None,
        train=columns,
        records=records,
    )


def words(value: object) -> str:
    """Return text as it is and other values as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def configuration(study: Study) -> dict[str, Any]:
    """Return settings that `rlzoo compare --config` (for one run: `rlzoo train --config`) repeats the runs from."""
    if study.stored is not None and len(study.ended) == len(study.runs):
        return study.stored
    first = study.runs[0].config
    if (study.folder / CONFIG).is_file():
        return first
    shared = {key: value for key, value in first.items() if key not in OWN}
    rows = [study.of(name)[0].config for name in study.algorithms]
    controls = [row["control"] for row in rows if row.get("control")]
    plain = [row["objective"] for row in rows if not row.get("control")]
    return {**shared, "objectives": plain, "controls": controls, "seeds": study.seeds}


def command(study: Study) -> str | None:
    """Return the command line that started the first run; None if unknown."""
    words = study.runs[0].environment.get("command") or []
    if not words:
        return None
    program = Path(words[0]).name
    start = ["python", "-m", "rlzoo"] if program == "__main__.py" else [program]
    return shlex.join([*start, *words[1:]])


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a nested table's settings under their names for --set."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings(study: Study) -> list[tuple[str, dict[str, list[str]]]]:
    """Return each shared setting with its values: value -> the algorithms that have it, in order."""
    result: dict[str, dict[str, list[str]]] = {}
    for name in study.algorithms:
        for run in study.of(name):
            for key, value in flat({k: v for k, v in run.config.items() if k not in OWN}):
                having = result.setdefault(key, {}).setdefault(json.dumps(value, ensure_ascii=False), [])
                if name not in having:
                    having.append(name)
    return list(result.items())


def circumstances(study: Study) -> list[tuple[str, list[str]]]:
    """Return each entry of the runs' environments with all its different values."""
    result: dict[str, list[str]] = {}
    for run in study.runs:
        for key, value in run.environment.items():
            text = words(value) if value not in (None, [], {}) else "none"
            if key not in ("command", "earlier", "started") and text not in result.setdefault(key, []):
                result[key].append(text)
    return list(result.items())


def rows_of_parts(study: Study) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return the columns that some algorithm fills, and algorithm -> column -> its parts with all their fields."""
    table = {
        name: {
            column: _cell(study.of(name)[0].config["objective"].get(column)) for column in objectives.Objective.columns
        }
        for name in study.algorithms
    }
    columns = [column for column in objectives.Objective.columns if any(row[column] for row in table.values())]
    return columns, table


def _cell(value: Any) -> str:
    if not value:
        return ""
    if isinstance(value, list):
        return " + ".join(map(_cell, value))
    fields = [f"{key} {_plain(field)}" for key, field in value.items() if key != "kind" and field is not None]
    return value["kind"] + (f" ({', '.join(fields)})" if fields else "")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else words(value)
