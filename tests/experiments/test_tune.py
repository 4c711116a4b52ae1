"""Tuning: the same search for everyone, on seeds of its own; winners run on fresh ones, and everything resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlzoo.cli.report import beyond_the_table, comparison_table, searched
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.config.run import TUNE_SEEDS, RunConfig
from rlzoo.errors import UserError
from rlzoo.experiments.compare import compare
from rlzoo.experiments.folders import run_folders
from rlzoo.experiments.tune import Search, Trial, search, search_runs
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from tests.experiments.test_compare import comparison

MakeConfig = Callable[..., RunConfig]
TUNE = {"setting": "lr", "values": [1e-3, 3e-3], "seeds": 2}


def trial(value: float, *accuracies: float, failed: int = 0) -> Trial:
    return Trial(value, list(accuracies), failed, 100, 2.0)


def test_the_best_mean_wins_unless_a_run_failed() -> None:
    trials = {
        "a": [trial(0.1, 0.2, 0.4), trial(0.2, 0.5, 0.3), trial(0.3, 0.1, 0.1)],
        "b": [trial(0.1, 0.2, 0.2), trial(0.2, 0.1, 0.1), trial(0.3, 0.9, failed=1)],
        "c": [trial(0.1, 0.5, 0.5), trial(0.2, 0.5, 0.5), trial(0.3, failed=2)],
    }
    made = Search("optimizer.lr", trials)
    assert made.chosen == {"a": 0.2, "b": 0.1, "c": 0.1}
    assert made.at_the_edge == ["b", "c"]
    table = made.as_dict()
    assert (table["runs"], table["tokens_sampled"], table["engine_s"]) == (18, 900, 18.0)
    assert table["spent"] == {name: {"runs": 6, "tokens_sampled": 300, "engine_s": 6.0} for name in "abc"}
    assert json.loads(json.dumps(table)) == table
    (line,) = searched(table)
    assert "18 runs (6 for each), 900 sampled tokens, 0:18" in line and "smallest or largest tried for b, c" in line
    assert searched(None) == []


def test_everyone_is_searched_alike_on_seeds_of_the_search(make_config: MakeConfig) -> None:
    config = comparison(make_config, objectives=["grpo", "ppo"], tune=TUNE, controls=["frozen"])
    runs = search_runs(config)
    assert len(runs) == 2 * 2 * 2 and "tune/lr=0.001/grpo/seed2000000" in runs
    assert {run.seed for run in runs.values()} == {TUNE_SEEDS, TUNE_SEEDS + 1}
    assert {(run.objective.name, run.optimizer.lr) for run in runs.values()} == {
        (name, lr) for name in ("grpo", "ppo") for lr in (1e-3, 3e-3)
    }
    assert all(run.optimizer.betas == config.optimizer.betas and run.control is None for run in runs.values())


def test_a_tuned_comparison_runs_resumes_and_tells(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    config = comparison(make_config, tune=TUNE, controls=["same"])
    result = compare(config, tmp_path, backbone=backbone)
    found = search(config, tmp_path, resume=True, backbone=backbone)  # the same numbers, from the folders
    assert result.tune == found.as_dict() and result.config.tuned == found.chosen
    assert json.loads((tmp_path / "comparison.json").read_text())["tuned"] == found.chosen
    for row in result.rows:
        name = row.objective.partition("+")[0]
        assert row.tuned == {"lr": found.chosen[name]}
        stored = RunFolder.open(tmp_path / row.objective / "seed0").read_json("config.json")
        assert stored["optimizer"]["lr"] == found.chosen[name]
    for value, one in zip((1e-3, 3e-3), found.trials["grpo"], strict=True):
        ends = [
            RunFolder.open(tmp_path / f"tune/lr={value}/grpo/seed{TUNE_SEEDS + i}").read_json("summary.json")
            for i in (0, 1)
        ]
        assert one.accuracies == [end["after"]["accuracy"] for end in ends]
        assert one.tokens_sampled == sum(end["tokens_sampled"] for end in ends)
    assert json.loads((tmp_path / "summary.json").read_text())["tune"]["chosen"] == found.chosen
    assert "\nlr" in [column.header for column in comparison_table(result, 120).columns]
    (line,) = beyond_the_table(result)
    assert line.startswith(f"lr: reinforce {found.chosen['reinforce']:g}, grpo ")
    assert all("tune" not in run.relative_to(tmp_path).parts for run in run_folders([tmp_path]))
    assert len(run_folders([tmp_path / "tune"])) == 8

    logs = {path: path.read_bytes() for path in tmp_path.rglob("metrics.jsonl")}
    with pytest.raises(UserError, match="already holds a comparison"):
        search(config, tmp_path, backbone=backbone)
    more = comparison(make_config, tune=TUNE, objectives=["reinforce", "grpo", "gspo"], seeds=3)
    again = compare(more, tmp_path, resume=True, backbone=backbone)
    assert {name: again.config.tuned[name] for name in found.chosen} == found.chosen
    assert all(path.read_bytes() == text for path, text in logs.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"setting": "train.steps", "values": [1, 2]}}, "'train.steps' cannot be tuned, only optimizer.lr"),
        ({"tune": {"values": [1e-3]}}, "two or more"),
        ({"tune": {"values": [1e-3, 1e-3]}}, "each once"),
        ({"tune": {"values": [1e-3, -1]}}, "greater than 0"),
        ({"tune": {"seeds": 3}}, "name the values too"),
        ({"tune": TUNE, "seeds": [2_000_000]}, "belong to controls and searches"),
        ({"tuned": {"ppo": 1e-3}}, r"one value for each of \['grpo'\]"),
    ],
)
def test_searches_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompareConfig.model_validate({"objectives": ["grpo"]} | changes)


def test_a_clip_is_searched_for_each_row_alike(make_config: MakeConfig) -> None:
    """Every row has each value of its own clip, on equally many runs, and keeps its name and its rate."""
    tune = {"setting": "surrogate.high", "values": [0.25, 0.3], "seeds": 2}
    config = comparison(make_config, objectives=["grpo", "dapo"], tune=tune)
    runs = search_runs(config)
    assert sorted((run.objective.name, config.tune.of(run)) for run in runs.values()) == sorted(
        (name, value) for name in ("grpo", "dapo") for value in (0.25, 0.3) for _ in range(2)
    )
    assert len({run.optimizer.lr for run in runs.values()}) == 1
    tuned = comparison(make_config, objectives=["grpo", "dapo"], tune=tune, tuned={"grpo": 0.3, "dapo": 0.25})
    assert {(run.row, run.objective.surrogate.high) for run in tuned.runs()} == {("grpo", 0.3), ("dapo", 0.25)}
    assert Plan.of(tuned).rate == f"at each row's best surrogate.high, lr {tuned.optimizer.lr:g} for all"


@pytest.mark.parametrize(("row", "setting"), [("reinforce", "surrogate.high"), ("grpo", "surrogate.none")])
def test_a_row_without_the_setting_is_refused(row: str, setting: str) -> None:
    given = {"objectives": [row], "tune": {"setting": setting, "values": [0.2, 0.3]}}
    with pytest.raises(ValidationError, match=f"tune.setting '{setting}' does not fit {row}"):
        CompareConfig.model_validate(given)
