"""Integrity of a run folder: readable files, right checksums, records in order, consistent counters.

metrics.jsonl    steps never fall, counters never fall, one record per training step
state.pt         its tensors' checksums, and those of the logs as far as they went when it was written
summary.json     the counters of the last record, the accuracy of the last evaluation, the adapters' checksums
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rlzoo.errors import UserError
from rlzoo.store.provenance import LIBRARIES, version
from rlzoo.store.run_folder import BEFORE, CONFIG, ENVIRONMENT, METRICS, SAMPLES, SUMMARY, RunFolder, read_lines

COUNTERS = ("updates", "prompts_sampled", "prompts_discarded", "tokens_sampled", "tokens_discarded", "tokens_trained")
"""Cumulative: each record has what all steps so far took."""


def check_run(path: Path) -> list[str]:
    """Return the problems of a run folder, one sentence each; nothing is changed.

    Raises:
        UserError: there is no run.
    """
    folder = RunFolder.open(path)
    problems: list[str] = []

    def attempt(read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except UserError as error:
            problems.append(str(error))
            return None

    attempt(folder.read_json, CONFIG)
    if (path / ENVIRONMENT).is_file():
        attempt(folder.read_json, ENVIRONMENT)
    summary = attempt(folder.read_json, SUMMARY) if (path / SUMMARY).is_file() else None
    records = attempt(folder.read_metrics)
    samples = attempt(read_lines, path / SAMPLES)
    saved = attempt(folder.read_state)
    attempt(folder.read_state, BEFORE)
    state = saved["state"] if saved else None
    if records is not None:
        problems += check_records(records, summary)
    if samples is not None:
        problems += _falling(SAMPLES, [sample["step"] for sample in samples])
    if state is not None:
        problems += folder.changed(state.get("files", {}))
    if state is not None and records is not None:
        problems += _counters("state.pt", state.get("counters", {}), records[: _known(records, state.get("step", 0))])
    if summary is not None:
        problems += folder.changed(summary.get("files", {}))
        if state is not None and state.get("summary") is None:
            problems.append(f"{path / SUMMARY} is there, but the checkpoint is of a run that goes on")
    return problems


def check_records(records: list[dict[str, Any]], summary: dict[str, Any] | None) -> list[str]:
    """Return the problems of a run's records, alone and against its outcome, if there is one."""
    return [*_order(records), *([] if summary is None else _outcome(summary, records))]


def lost_runs(folder: Path, stored: dict[str, Any], known: set[tuple[str, int]], told: Sequence[str]) -> Iterator[str]:
    """Yield the runs that comparison.json has, that are not known, and whose folders have lost their configuration."""
    for objective in stored.get("objectives", ()):
        for seed in stored.get("seeds", ()):
            name = f"{objective['name']}/seed{seed}"
            there = (folder / name).is_dir() and any((folder / name).iterdir())
            if there and (objective["name"], seed) not in known and not any(t.startswith(f"{name}: ") for t in told):
                yield f"{name}: its {CONFIG} is missing"


def notes_on(path: Path) -> list[str]:
    """Return remarks that are not problems: leftovers of a kill, library versions that differ from the run's."""
    notes = [f"{left} was left by a kill; the next start removes it" for left in RunFolder(path).leftovers()]
    try:
        made_with = RunFolder(path).read_json(ENVIRONMENT)
    except UserError:
        return notes
    other = [f"{n} {made_with[n]} (here {version(n)})" for n in LIBRARIES if made_with.get(n, version(n)) != version(n)]
    return notes + ([f"trained with {', '.join(other)}"] if other else [])


def _order(records: list[dict[str, Any]]) -> Iterator[str]:
    """Steps and counters that fall, and steps without a record."""
    yield from _falling(METRICS, [record["step"] for record in records])
    for name in COUNTERS:
        yield from _falling(f"{METRICS}: {name}", [record[name] for record in records if name in record])
    steps = [record["step"] for record in records if record["kind"] == "train"]
    missing = sorted(set(range(1, max(steps, default=0) + 1)) - set(steps))
    if missing:
        yield f"{METRICS} has no record of step {missing[0]}" + (f" and {len(missing) - 1} more" * (len(missing) > 1))
    twice = sorted({step for step in steps if steps.count(step) > 1}) if len(set(steps)) < len(steps) else []
    if twice:
        yield f"{METRICS} has step {twice[0]} more than once: two processes may have written it"


def _falling(what: str, numbers: list[float]) -> Iterator[str]:
    place = next((i for i, (a, b) in enumerate(pairwise(numbers), start=2) if b < a), None)
    if place is not None:
        yield f"{what} falls from {numbers[place - 2]:g} to {numbers[place - 1]:g} at record {place}: out of order"


def _known(records: list[dict[str, Any]], step: int) -> int:
    """Number of records up to the end of a step."""
    return max((i for i, record in enumerate(records, start=1) if record["step"] <= step), default=0)


def _counters(where: str, counters: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    last = next((record for record in reversed(records) if COUNTERS[0] in record), None)
    for name in COUNTERS if last else ():
        if name in counters and name in last and counters[name] != last[name]:
            yield f"{name} is {counters[name]} in {where} and {last[name]} in {METRICS}"


def _outcome(summary: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    yield from _counters(SUMMARY, summary, records)
    # Outcomes are of the test split, where a run has one.
    evaluations = [record for record in records if record["kind"] == "test"]
    evaluations = evaluations or [record for record in records if record["kind"] == "eval"]
    for end, position in (("before", 0), ("after", -1)):
        measured = summary.get(end)
        if measured is None or (end == "after" and summary["state"] == "failed"):
            continue
        if not evaluations or measured["accuracy"] != evaluations[position].get("accuracy"):
            there = evaluations[position].get("accuracy") if evaluations else "nothing"
            yield f"{SUMMARY} has accuracy {measured['accuracy']} {end} training, {METRICS} {there}"
