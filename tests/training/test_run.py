"""The files of a run: records, times, samples, adapters."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import UPDATE_KEYS
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder, read_lines
from rlzoo.tasks import Problem
from rlzoo.training.launch import train, train_fleet
from rlzoo.training.loop import over_updates
from tests.runs import EvenTask

MakeConfig = Callable[..., RunConfig]


def test_the_first_response_to_the_first_prompts_is_kept(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config(train={"samples": 3, "steps": 1}, evaluation={"samples": 2, "prompts": 2})
    train(config, tmp_path, backbone=backbone)
    kept = read_lines(tmp_path / "samples.jsonl")
    assert [(s["kind"], s["step"]) for s in kept] == [("eval", 0)] * 2 + [("train", 1)] * 3 + [("eval", 1)] * 2
    assert [s["prompt"] for s in kept[:2]] == [s["prompt"] for s in kept[-2:]]
    assert len({s["prompt"] for s in kept[2:5]}) == 3  # one per prompt, not three responses to one
    for sample in kept:
        even = float(sample["completion"][:1] != "" and ord(sample["completion"][0]) % 2 == 0)
        assert sample["reward"] == sample["accuracy"] == even
        assert 1 <= sample["length"] <= 6 and (sample["finished"] or sample["length"] == 6)


def test_before_and_after_are_the_first_and_the_last_evaluation(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    summary = train(make_config(train={"steps": 4}), tmp_path, backbone=backbone)
    evaluations = [r for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] == "eval"]
    assert [r["step"] for r in evaluations] == [0, 2, 4]
    for name, record in (("before", evaluations[0]), ("after", evaluations[-1])):
        assert summary[name]["step"] == record["step"]
        assert all(record[key] == value for key, value in summary[name].items())


def test_the_folder_names_the_model_and_the_path_that_computed(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    for setting, path in (("off", "padded"), ("auto", "packed, cpu")):
        config = make_config(train={"steps": 1}, engine={"fast_path": setting})
        train(config, tmp_path / setting, backbone=backbone)
        environment = RunFolder.open(tmp_path / setting).read_json("environment.json")
        assert environment["backbone"]["path"] == path and environment["backbone"] == backbone.describe()
    samples = [read_lines(tmp_path / setting / "samples.jsonl") for setting in ("off", "auto")]
    assert samples[0] == samples[1]


def test_policy_and_critic_are_saved_each_as_itself(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    train(make_config("ppo", train={"critic": "adapter"}), tmp_path, backbone=backbone)
    state = RunFolder.open(tmp_path).load_state()
    assert state is not None
    final, checkpoint = (
        [backbone.load_adapter(folder / name) for name in ("adapter", "critic")]
        for folder in (tmp_path, tmp_path / state["checkpoint"])
    )
    assert all(torch.equal(a, b) for a, b in zip(final, checkpoint, strict=True)) and not torch.equal(*final)
    train(make_config("ppo"), tmp_path / "head", backbone=backbone)
    assert not (tmp_path / "head/critic").exists()


def test_times_go_on_where_an_interrupted_run_stood(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(_: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            raise Killed

    config = make_config()
    with pytest.raises(Killed):
        train(config, tmp_path, backbone=backbone, on_record=kill)
    folder = RunFolder.open(tmp_path)
    state = folder.load_state()
    assert state is not None and state["step"] == 1
    state |= {"seconds": 1000.0, "elapsed": 2000.0}  # as if it had been slow
    folder.save_state(state)
    train(config, tmp_path, backbone=backbone, resume=True)
    times = [(r["engine_s"], r["elapsed_s"]) for r in folder.read_metrics()]
    assert all(engine < 1000 and elapsed < 2000 for engine, elapsed in times[:2])
    assert all(1000 < engine < 1100 and 2000 < elapsed < 2100 for engine, elapsed in times[2:])


def test_every_epoch_updates_on_every_token_again(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    summary = train(make_config("gspo", train={"epochs": 3, "steps": 2}), tmp_path, backbone=backbone)
    assert summary["updates"] == 2 * 3 * 2  # steps, epochs, minibatches
    assert summary["tokens_trained"] == 3 * summary["tokens_sampled"]


def test_the_rate_is_that_of_the_step(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    optimizer = {"lr": 8e-3, "warmup_steps": 2, "schedule": "linear"}
    train(make_config(train={"steps": 4}, optimizer=optimizer), tmp_path, backbone=backbone)
    records = [r for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] == "train"]
    assert [r["learning_rate"] for r in records] == pytest.approx([4e-3, 8e-3, 8e-3, 4e-3])


def test_an_adaptive_coefficient_is_carried_from_step_to_step(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """The policy starts as the reference: KL 0 is far below any target, so the first change is to 98%."""
    config = make_config("ppo[shape.coef=0.1,shape.target=1e3]", train={"steps": 4})
    train(config, tmp_path, backbone=backbone)
    used = [r["kl_state"] for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] == "train"]
    assert used == pytest.approx([0.1, 0.1 * 0.98, 0.1 * 0.98**2, 0.1 * 0.98**3])


def test_metrics_of_a_step_are_means_over_its_updates_and_the_extremes_of_the_ratio() -> None:
    updates = [dict.fromkeys(UPDATE_KEYS, value) for value in (1.0, 4.0)]
    merged = over_updates(updates)
    assert (merged["ratio_min"], merged["ratio_max"]) == (1.0, 4.0)
    assert {merged[key] for key in UPDATE_KEYS if key not in ("ratio_min", "ratio_max")} == {2.5}
    assert all(math.isnan(value) for value in over_updates([]).values())


def test_a_prompt_too_long_for_any_run_is_found_before_anything_is_recorded(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Rows(EvenTask):
        kind, at_hand = "rows", True

        def size(self, split: str) -> int:
            return 900

        def problem(self, split: str, index: int) -> Problem:
            return Problem("7" * (55 if (split, index) == ("train", 800) else 5), "")

    long, short = make_config("grpo", train={"max_new_tokens": 10}), make_config("gspo")
    runs = {"short": (short, tmp_path / "short"), "long": (long, tmp_path / "long")}
    with pytest.raises(UserError, match="train row 800: a prompt of 55 tokens with max_new_tokens 10"):
        train_fleet(runs, backbone=backbone, task=Rows("rows"))
    assert not any(RunFolder.open(folder).began for _, folder in runs.values())
