"""What is wrong with a run: bytes that are not what was written, and a training that does not do what it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advantages import Need
from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.config.sources import read_file
from rlzoo.errors import UserError
from rlzoo.stats.symptoms import Columns, symptoms
from rlzoo.store.check import check_run, notes_on
from rlzoo.store.foreign import read_log
from rlzoo.store.run_folder import CONFIG, METRICS, read_lines


@dataclass(frozen=True)
class Finding:
    """What was found at one place, a sentence each.

    Attributes:
        damage: files that are not what was written.
        symptoms: what the records say is wrong with the training.
        notes: what is worth knowing, and nothing wrong.
    """

    path: Path
    damage: Sequence[str]
    symptoms: Sequence[str]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self) | {"path": str(self.path)}


def examine(paths: Sequence[Path]) -> list[Finding]:
    """Examine the runs in and below folders, and logs of other trainers.

    Raises:
        UserError: there is no run in a folder, or a file is no log that is known.
    """
    found: list[Finding] = []
    for path in paths:
        if path.is_file():
            columns = read_log(path)
            found.append(_finding(path, [], columns, [f"columns read: {', '.join(sorted(columns))}"]))
            continue
        runs = sorted(config.parent for config in path.rglob(CONFIG) if "checkpoint-" not in str(config))
        if not runs:
            raise UserError(f"there is no run (no {CONFIG}) in or below {path}")
        found += [_examine_run(run) for run in runs]
    return found


def _examine_run(path: Path) -> Finding:
    damage = check_run(path)
    try:
        records = [record for record in read_lines(path / METRICS) if record["kind"] == "train"]
    except UserError:
        records = []
    keys = {key for record in records for key, value in record.items() if isinstance(value, (int, float))}
    if _is_taught(path):  # equal rewards are no silence where demonstrations or a teacher are learned from
        keys -= {"silent_groups", "reward_std"}
    columns = {key: [record.get(key) for record in records] for key in keys}
    return _finding(path, damage, columns, notes_on(path))


def _is_taught(path: Path) -> bool:
    """Whether a run learns from demonstrations or a teacher; false where its settings cannot be read."""
    try:
        objective = validate(RunConfig, read_file(path / CONFIG), str(path)).objective
    except UserError:
        return False
    return bool({Need.DEMONSTRATION, Need.TEACHER_LOGP} & set(objective.needs)) or objective.imitation is not None


def _finding(path: Path, damage: Sequence[str], columns: Columns, notes: Sequence[str]) -> Finding:
    told = symptoms(columns)
    sick, remarks = ([one.text for one in told if one.symptom is kind] for kind in (True, False))
    return Finding(path, damage, sick, [*remarks, *notes])
