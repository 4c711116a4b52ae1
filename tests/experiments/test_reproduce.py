"""Published rows: each file is whole and can be run, and our numbers are set beside theirs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from rlzoo.config.published import Published, Reference
from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.experiments import reproduce
from rlzoo.experiments.reproduce import Point, compared, curve, find, prepare, rows
from rlzoo.report.reproduction import draw
from rlzoo.tasks import load_task

ROWS = rows()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_whole_and_its_settings_can_be_used(name: str) -> None:
    row = ROWS[name]
    for file in row.imports:
        assert (reproduce.FOLDER / file).is_file()
    config = row.config(None, data="/data", base="/base")
    assert row.tolerance and row.differs and all(source.where for source in row.sources)
    steps = {reference.step for reference in row.reference}
    assert max(steps) <= config.train.steps
    evaluated = {one.step for one in row.reference if not one.metric.startswith("train.")}
    assert all(step % config.evaluation.every == 0 or step == config.train.steps for step in evaluated)
    assert (row.base() is None) == (row.warmstart is None)
    assert row.data or row.warmstart or row.config(1).train.steps == 1


def test_rows_that_the_field_is_known_by_are_there() -> None:
    verl = find("verl-grpo-lora-gsm8k-1.5b").config(10, data="/data")
    assert (
        verl.objective.row()["surrogate"] == "clip(0.2, 0.2, dual=3)"
        and verl.objective.row()["entropy"] == "bonus(0.001)"
    )
    assert verl.train.steps == 10 and not verl.train.shuffle and verl.task.grader == "gsm8k"
    assert verl.task.suffix == ' Let\'s think step by step and output the final answer after "####".'
    assert {row.device for row in ROWS.values()} == {"cpu", "gpu"}
    assert sum(row.device == "cpu" for row in ROWS.values()) >= 2


def test_a_point_is_inside_up_to_its_tolerance() -> None:
    one = Reference(step=5, value=0.5, tolerance=0.1)
    found = [Point(one, value).outcome for value in (0.4, 0.6, 0.61, None)]
    assert found == ["inside", "inside", "outside", "not reached"]


def test_a_direction_holds_by_more_than_chance_and_a_change_needs_both_steps() -> None:
    """From 0.5 to 0.58 are 0.08, more than 0.05 up; not more than 0.1."""
    up = Reference(step=2, since=0, relation="above", value=0, tolerance=0.05)
    values = {0: 0.5, 2: 0.58}
    change = reproduce.found(up, values)
    assert change == pytest.approx(0.08) and up.inside(change)
    assert not up.model_copy(update={"tolerance": 0.1}).inside(change)
    assert not up.model_copy(update={"relation": "below"}).inside(change)
    assert up.model_copy(update={"relation": "below"}).inside(-change)
    assert reproduce.found(up, {2: 0.58}) is None and reproduce.found(up, {0: 0.5}) is None
    assert (up.label, up.wanted) == ("accuracy, change since 0", "above 0.05")


def test_fewer_steps_of_a_falling_rate_are_refused() -> None:
    with pytest.raises(UserError, match="fewer steps are another schedule"):
        find("nanochat-reinforce-gsm8k-d24").config(300, data="/data")


def test_a_base_of_other_settings_is_not_taken(tmp_path: Path) -> None:
    row = small()
    prepare("mine", row, tmp_path)
    other = small(warmstart={**(row.warmstart or {}), "steps": 3})
    with pytest.raises(UserError, match="trained with other settings: name another folder"):
        prepare("mine", other, tmp_path)


def test_paths_are_walks_of_the_graph_and_splits_are_apart() -> None:
    prepare("paths-pg", ROWS["paths-pg"].model_copy(update={"warmstart": None}), Path("."))
    made, paths = importlib.import_module("published_paths"), load_task(TaskConfig(name="paths"))
    train, test = (set(made.pairs()[split]) for split in ("train", "test"))
    assert not train & test and 0.15 < len(train) / len(train | test) < 0.25
    problem = paths.problem("train", 3)
    assert problem.prompt in train and paths.problem("test", 3).prompt in test
    s, t = str(problem.prompt)
    shown = {paths.demonstration(problem, Random(seed)) for seed in range(50)}
    assert 1 < len(shown) <= made.WALKS and all(paths.grade(problem, path) == 1 for path in shown)
    path = max(shown, key=len)
    wrong = ["", s, path[1:], path[:-1], path[:-1] + made.NAMES[0] + t]
    assert all(paths.grade(problem, one) == 0 for one in wrong)


def test_what_a_row_needs_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs data: gsm8k_train.jsonl.*--data"):
        prepare("verl-grpo-lora-gsm8k-0.5b", ROWS["verl-grpo-lora-gsm8k-0.5b"], tmp_path)
    with pytest.raises(UserError, match="no published row 'verl'"):
        find("verl")
    with pytest.raises(UserError, match="clone the repository"):
        rows(tmp_path / "nowhere")


def test_data_that_is_named_and_not_described_is_refused() -> None:
    row = ROWS["parity-grpo-25"].model_dump()
    with pytest.raises(ValueError, match=r"data: the settings have to name \{data\}"):
        Published.model_validate(row | {"data": "something"})


def small(**changes: Any) -> Published:
    table = ROWS["parity-grpo-25"].model_dump()
    table["warmstart"] |= {
        "steps": 2, "batch_size": 2, "warmup_steps": 1, "hidden_size": 64, "layers": 1, "heads": 1, "mlp_size": 64,
    }  # fmt: skip
    table["run"]["train"] |= {"steps": 2, "prompts_per_step": 2, "group_size": 2, "max_new_tokens": 4}
    table["run"]["evaluation"] |= {"every": 1, "prompts": 2}
    return Published.model_validate(table | changes)


def test_a_row_trains_its_base_runs_and_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        {"step": 0, "metric": "length", "value": 4, "tolerance": 4},
        {"step": 2, "metric": "accuracy", "value": 7, "tolerance": 0.1},
        {"step": 9, "metric": "accuracy", "value": 0, "tolerance": 1},
        {"step": 1, "metric": "train.length", "value": 4, "tolerance": 4},
    ]
    row = small(reference=points)
    monkeypatch.setattr(reproduce, "find", lambda name: row)
    losses: list[int] = []
    made = reproduce.reproduce("mine", tmp_path, on_base=lambda step, loss: losses.append(step))
    assert losses == [0, 1] and (tmp_path / "base" / "model.safetensors").is_file()
    assert [point.outcome for point in made.points] == ["inside", "outside", "not reached", "inside"]
    assert [step for step, _ in made.curves["accuracy"]] == [0, 1, 2]
    stored = json.loads((tmp_path / "reproduction.json").read_text())
    assert [point["outcome"] for point in stored["points"]] == [point.outcome for point in made.points]
    draw(made, tmp_path / "curves.svg")
    assert "train.length" in (tmp_path / "curves.svg").read_text()
    again = reproduce.reproduce("mine", tmp_path, resume=True, on_base=lambda step, loss: losses.append(step))
    assert losses == [0, 1] and again.curves == made.curves  # the base is there already, and so is the run


def test_curves_under_every_grader_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        {"kind": "eval", "step": 0, "accuracy": 0.1, "accuracy_flexible": 0.5, "length": None},
        {"kind": "train", "step": 1, "reward": 0.25},
    ]
    monkeypatch.setattr(reproduce.RunFolder, "open", lambda path: SimpleNamespace(read_metrics=lambda: records))
    row = small(reference=[{"step": 0, "value": 0.1, "tolerance": 0.01}])
    made = compared("mine", row, Path("."))
    assert made.curves == {"accuracy": [(0, 0.1)], "accuracy_flexible": [(0, 0.5)]}
    assert curve(records, "train.reward") == [(1, 0.25)] and curve(records, "length") == []


def test_bits_are_shown_both_ways() -> None:
    """Of 0110: the parity so far is 0, 1, 0, 0."""
    prepare("parity-ntp-50", ROWS["parity-ntp-50"].model_copy(update={"warmstart": None}), Path("."))
    bits = load_task(TaskConfig(name="bits:8-25"))
    problem = bits.problem("train", 0)
    assert len(str(problem.prompt)) == 9 and bits.styles(problem) == {"long": 0.25, "short": 0.75}
    made = importlib.import_module("published_bits").Problem("0110=", "0", {"level": "8-25"})
    assert bits.write(made, "long", None) == "0100" and bits.write(made, "short", None) == "0"
    assert (
        bits.grade(made, "0100") == bits.grade(made, "0") == 1 and bits.grade(made, "01") == bits.grade(made, "") == 0
    )
