"""Controls: the first objective on other seeds, with coin flips as rewards, or without its updates; and pass@k."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlzoo.cli.report import beyond_the_table, comparison_table
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import OTHER_SEEDS, RunConfig
from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.experiments.compare import compare
from rlzoo.experiments.rows import summary_row
from rlzoo.model.backbone import Backbone
from rlzoo.report.notes import controls
from rlzoo.store.run_folder import ADAPTER, RunFolder
from rlzoo.training.launch import train
from rlzoo.training.rollout import flip_coins
from tests.experiments.test_compare import comparison
from tests.training.test_credit import rollout_of

MakeConfig = Callable[..., RunConfig]


def samples(folder: Path, kind: str) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return [(line["step"], line["prompt"], line["completion"]) for line in lines if line["kind"] == kind]


def test_controls_are_rows_of_the_first_objective(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    config = comparison(make_config, objectives=["grpo", "reinforce"], controls=["same", "random_reward", "frozen"])
    rows = ["grpo", "reinforce", "grpo+same", "grpo+random_reward", "grpo+frozen"]
    result = compare(config, tmp_path, backbone=backbone)
    assert [row.objective for row in result.rows] == rows and all(row.seeds == 2 for row in result.rows)
    assert {s["name"] for s in result.summaries} == {f"{row}/seed{seed}" for row in rows for seed in (0, 1)}
    assert RunFolder.open(tmp_path / "grpo+same/seed1").read_json("config.json")["control"] == "same"
    (line,) = controls(result.summaries)
    assert "+same" in line and "coin flips" in line and "+frozen" in line
    assert controls([s for s in result.summaries if "+" not in s["objective"]]) == []
    frozen = result.rows[-1]
    assert frozen.gain is not None and frozen.gain.mean == 0
    theta = [backbone.load_adapter(tmp_path / f"{row}/seed0" / ADAPTER) for row in ("grpo", "grpo+frozen")]
    assert not torch.equal(theta[0], theta[1])
    assert torch.equal(theta[1], backbone.load_adapter(tmp_path / "grpo+frozen/seed0" / ADAPTER))
    first = {row: [s for s in samples(tmp_path / row / "seed0", "train") if s[0] == 1] for row in rows}
    assert first["grpo"] == first["grpo+frozen"] == first["grpo+random_reward"] == first["reinforce"]
    assert {s[1] for s in first["grpo"]}.isdisjoint(s[1] for s in first["grpo+same"])
    tests = [samples(tmp_path / row / "seed0", "eval")[0] for row in rows]
    assert len(set(tests)) == 1  # the held-out problems and their noise are the same for everyone


def test_the_control_on_other_seeds_is_the_run_of_that_seed(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config("grpo", seed=3, train={"steps": 2})
    same = RunConfig.model_validate(config.model_dump() | {"control": "same"})
    other = RunConfig.model_validate(config.model_dump() | {"seed": 3 + OTHER_SEEDS})
    assert (same.name, same.noise_seed) == ("grpo+same/seed3", other.seed)
    train(same, tmp_path / "same", backbone=backbone)
    train(other, tmp_path / "other", backbone=backbone)
    assert samples(tmp_path / "same", "train") == samples(tmp_path / "other", "train")


def test_coins_know_nothing_of_the_responses() -> None:
    request = SampleRequest(
        policy=BASE, prompts=(), group_size=64, max_new_tokens=4, seed=0, step=0, prompt_keys=range(2), temperature=1.0
    )
    rewards = [[5.0] * 63 + [math.nan], [0.0] * 64]
    rollout = rollout_of(rewards, [[2] * 64] * 2)
    flipped = flip_coins(rollout, request)
    known = flipped.reward_N[rollout.reward_N.isfinite()]
    assert set(known.tolist()) == {0.0, 1.0}
    assert abs(float(known.mean()) - 0.5) < 3 * 0.5 / math.sqrt(127)
    assert flipped.reward_N[63].isnan() and torch.equal(flipped.accuracy_N, rollout.accuracy_N)
    assert torch.equal(flip_coins(rollout_of([[1.0] * 64] * 2, [[3] * 64] * 2), request).reward_N[:63], known[:63])
    for other in (replace(request, seed=1), replace(request, step=1), replace(request, greedy=True)):
        assert not torch.equal(flip_coins(rollout, other).reward_N[64:], flipped.reward_N[64:])
    swapped = flip_coins(rollout_of(rewards[::-1], [[2] * 64] * 2), replace(request, prompt_keys=[1, 0]))
    assert torch.equal(swapped.reward_N[:64], flipped.reward_N[64:])  # a coin goes with its place, whoever is beside it


def test_a_run_with_coins_reports_the_coins_and_its_true_accuracy(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config("grpo", train={"steps": 1, "prompts_per_step": 8, "samples": 8})
    coins = RunConfig.model_validate(config.model_dump() | {"control": "random_reward"})
    records = []
    for one in (config, coins):
        train(one, tmp_path / one.name, backbone=backbone)
        records.append(next(r for r in RunFolder.open(tmp_path / one.name).read_metrics() if r["kind"] == "train"))
    assert records[0]["accuracy"] == records[1]["accuracy"] == records[0]["reward"] != records[1]["reward"]


def test_with_coins_what_is_imitated_knows_nothing_of_what_is_right(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Two opinions of what is right give one run where coins decide, and two runs where they do not."""
    losses: dict[tuple[str | None, bool], float] = {}
    for control in (None, "random_reward"):
        for everything in (False, True):
            task = {"accuracy": "tests.training.rewards:one"} if everything else {}
            config = make_config("vapo", task=task, train={"steps": 1, "minibatches": 1})
            config = RunConfig.model_validate(config.model_dump() | {"control": control})
            folder = tmp_path / f"{control}{everything}"
            train(config, folder, backbone=backbone)
            metrics = RunFolder.open(folder).read_metrics()
            losses[control, everything] = next(r["loss"] for r in metrics if r["kind"] == "train")
    assert losses["random_reward", False] == losses["random_reward", True]
    assert losses[None, False] != losses[None, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ["frozen", "frozen"]}, "controls must each be named once"),
        ({"controls": ["thawed"]}, "'same', 'random_reward' or 'frozen'"),
        ({"controls": ["same"], "seeds": [OTHER_SEEDS]}, "belong to the control 'same'"),
        ({"objectives": ["sft"], "controls": ["random_reward"]}, "sft learns from demonstrations"),
        ({"evaluation": {"greedy": True, "final_samples": 8}}, "leave samples and final_samples at 1"),
    ],
)
def test_controls_that_would_do_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompareConfig.model_validate({"objectives": ["grpo"]} | changes)


def test_pass_at_k_before_and_after(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    evaluation = {"every": 1, "prompts": 4, "final_prompts": 4, "final_samples": 4}
    result = compare(comparison(make_config, objectives=["grpo"], evaluation=evaluation), tmp_path, backbone=backbone)
    records = RunFolder.open(tmp_path / "grpo/seed0").read_metrics()
    measured = [(r["kind"], r["step"], "pass@4" in r) for r in records if r["kind"] != "train"]
    curve = [("eval", step, False) for step in range(4)]
    assert measured == [curve[0], ("test", 0, True), *curve[1:], ("test", 3, True)]
    (row,) = result.rows
    ends = [[s[end]["pass@4"] for s in result.summaries] for end in ("before", "after")]
    assert row.pass_k == 4 and row.pass_before is not None and row.pass_after is not None and row.pass_gain is not None
    assert [row.pass_before.mean, row.pass_after.mean] == pytest.approx([sum(end) / 2 for end in ends])
    assert row.pass_gain.mean == pytest.approx(row.pass_after.mean - row.pass_before.mean)
    (line,) = beyond_the_table(result)
    assert line.startswith("pass@4 before and after, %: grpo ") and "→" in line
    assert "pass@4\n%" in [column.header for column in comparison_table(result, 120).columns]


def test_without_several_samples_there_is_no_pass_at_k() -> None:
    cost = {"updates": 4, "tokens_sampled": 10, "tokens_discarded": 2, "engine_s": 1.0}
    end = {"accuracy": 0.25, "length": 4}
    row = summary_row("x", [{"state": "done", "seed": 0, "before": end, "after": end} | cost], [])
    assert (row.pass_k, row.pass_after) == (None, None)
