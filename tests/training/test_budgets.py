"""Runs end at their budget and record it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlzoo.config.budget import COUNTERS
from rlzoo.config.run import RunConfig
from rlzoo.model.backbone import Backbone
from rlzoo.report.notes import unspent
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.launch import train

MakeConfig = Callable[..., RunConfig]


@pytest.mark.parametrize("budget", ["tokens=150", "trained=150", "updates=3", "seconds=0.0001"])
def test_a_run_ends_after_the_first_step_that_reaches_it(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, budget: str
) -> None:
    config = make_config("grpo", train={"steps": 50, "budget": budget})
    summary = train(config, tmp_path, backbone=backbone)
    unit, _, limit = budget.partition("=")
    records = RunFolder.open(tmp_path).read_metrics()
    spent = [record[COUNTERS[unit]] for record in records if record["kind"] == "train"]
    assert spent[-1] >= float(limit) and all(value < float(limit) for value in spent[:-1])
    assert summary["ended"] == "budget" and summary["step"] == len(spent) < 50 and summary["budget"] == budget
    assert records[-1]["kind"] == "eval" and records[-1]["step"] == summary["step"] == summary["after"]["step"]
    assert RunFolder.open(tmp_path).read_json("config.json")["train"]["budget"] == budget


def test_steps_are_the_upper_limit(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    summary = train(make_config(train={"steps": 2, "budget": "tokens=1M"}), tmp_path / "a", backbone=backbone)
    assert (summary["step"], summary["ended"]) == (2, "steps")
    (line,) = unspent([summary])
    assert "1 of 1 runs made all 2 steps without spending their budget, tokens=1000000" in line
    free = train(make_config(train={"steps": 1}), tmp_path / "b", backbone=backbone)
    assert (free["ended"], free["budget"], unspent([free])) == ("steps", None, [])


def test_what_is_sampled_and_discarded_is_paid_for(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """At an equal budget of sampled tokens, selection leaves fewer to train on."""
    steps = {}
    for name in ("grpo", "grpo[select=mixed]"):
        config = make_config(name, train={"steps": 50, "group_size": 2, "budget": "tokens=400"})
        steps[name] = train(config, tmp_path / name, backbone=backbone)
    every, mixed = steps.values()
    assert mixed["tokens_discarded"] > 0 and mixed["step"] < every["step"]
    assert min(every["tokens_sampled"], mixed["tokens_sampled"]) >= 400


def test_a_run_that_was_killed_ends_at_the_same_step(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config("grpo", train={"steps": 50, "budget": "tokens=200"})
    whole = train(config, tmp_path / "whole", backbone=backbone)
    with pytest.raises(RuntimeError, match="killed"):
        train(config, tmp_path / "cut", backbone=backbone, on_record=killed_after_two_steps)
    cut = train(config, tmp_path / "cut", backbone=backbone, resume=True)
    counted = ("step", "ended", "tokens_sampled", "updates", "after")
    assert [cut[key] for key in counted] == [whole[key] for key in counted]


def killed_after_two_steps(_: str, record: dict[str, object]) -> None:
    if record["kind"] == "train" and record["step"] == 2:
        raise RuntimeError("killed")


def test_a_rate_that_falls_until_the_last_step_needs_to_know_it(make_config: MakeConfig) -> None:
    with pytest.raises(ValidationError, match="with a budget the schedule must be constant"):
        make_config(train={"budget": "tokens=1k"}, optimizer={"schedule": "cosine"})
    with pytest.raises(ValidationError, match="did you mean 'tokens'"):
        make_config(train={"budget": "token=1k"})
