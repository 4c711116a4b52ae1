"""A run in a fleet equals the run alone; runs do not mix; batching changes nothing."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import get, names
from rlzoo.config.run import RunConfig
from rlzoo.engine import local, sampler
from rlzoo.engine.protocol import SampleRequest, Samples
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import read_lines
from rlzoo.training.launch import train, train_fleet
from tests.sampling import named, sample
from tests.training.same import TOLERANCE, assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]
ANY_SIZE = [name for name in names() if get(name).group_size is None]  # the runs of these tests share one group size
SAMPLED = [name for name in ANY_SIZE if not get(name).needs & {"demonstration", "teacher_logp"}]
"""Objectives that learn from what the policy samples, with nobody's help; the others have files of their own."""


def test_a_run_in_a_fleet_is_the_run_alone(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    # Where an objective picks single tokens by rank, two that are equal up to rounding may change places. Adam's early
    # steps are about rate * g / (|g| + eps): at the usual eps, 1e-8, an element whose gradient is rounding alone goes
    # where rounding says. `ppo_kl` had one, -0.7e-9 alone and 4e-9 in the fleet where the median is 5e-4, and it ended
    # 6e-4 apart, while no element of these two gradients differed by more than 1.2e-6, at a norm of 3.8.
    eps = {"eps": 1e-5}
    continuous = [name for name in SAMPLED if get(name).tokens is None]
    runs = {f"{name}/{seed}": make_config(name, seed, optimizer=eps) for name in continuous for seed in (0, 1)}
    runs["ppo-critic/0"] = make_config("ppo", train={"critic": "adapter"}, optimizer=eps)
    together = {name: (config, tmp_path / "fleet" / name) for name, config in runs.items()}
    train_fleet(together, backbone=backbone)
    for name, config in runs.items():
        if name.endswith("/0"):
            train(config, tmp_path / "alone" / name, backbone=backbone)
            assert_same_run(tmp_path / "alone" / name, tmp_path / "fleet" / name, backbone)


def test_what_demands_a_group_size_trains_as_its_parent_does_at_that_size(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """A demand moves no number. In pairs that disagree (d = 1) A is +-(d/2) / sqrt(2 (d/2)^2) = +-1/sqrt(2)."""
    pairs = {"group_size": 2, "steps": 2}
    demanding = [name for name in names() if get(name).group_size == 2]
    assert "grpo_2" in demanding
    runs = {name: (make_config(name, train=pairs), tmp_path / name) for name in [*demanding, "grpo"]}
    summaries = train_fleet(runs, backbone=backbone)
    for name in demanding:
        assert (summaries[name]["state"], summaries[name]["updates"]) == ("done", 4)
        assert_same_run(tmp_path / "grpo", tmp_path / name, backbone)
        trained = [record for record in untimed(tmp_path / name) if record["kind"] == "train"]
        assert any(record["gradient_norm"] > 0.1 for record in trained)
        assert max(record["advantage_max"] for record in trained) == pytest.approx(0.5**0.5, rel=1e-5)


def test_a_fresh_adapter_samples_what_the_base_samples(make_config: MakeConfig, backbone: Backbone) -> None:
    """To the last bit: B is 0, and adding 0 to a layer's output changes nothing."""
    asked = {"group_size": 8, "max_new_tokens": 6, "seed": 1, "step": 0, "prompt_keys": range(4)}
    prompts = [backbone.encode(f"t{i}=") for i in range(4)]
    (bare,), (fresh,) = (
        sample(backbone, [SampleRequest(named(theta), prompts, **asked)]) for theta in (None, backbone.new_adapter(3))
    )
    for name in ("response_NT", "mask_NT", "logp_NT", "finished_N"):
        assert torch.equal(getattr(bare, name), getattr(fresh, name))


def test_equal_requests_are_sampled_once(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first update all runs are the base: one evaluation for all, one rollout for those of one seed."""
    batches: list[int] = []

    def counted(backbone: Backbone, requests: list[SampleRequest], *settings: Any) -> list[Samples]:
        batches.append(len(requests))
        return sampler.sample(backbone, requests, *settings)

    monkeypatch.setattr(local, "sample", counted)
    one = {"processes": 1}
    runs = {f"{name}{seed}": make_config(name, seed, engine=one) for name in ("grpo", "gspo") for seed in (0, 1)}
    train_fleet({name: (config, tmp_path / name) for name, config in runs.items()}, backbone=backbone)
    assert batches == [1, 2, 4, 4, 4, 4]  # evaluation, rollout 1, rollout 2, evaluation, rollout 3, evaluation
    first = [untimed(tmp_path / name)[0] for name in runs]
    assert all(record == first[0] for record in first)


def test_training_moves_the_adapter(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """Guards the tests above against comparing runs that do nothing."""
    train(make_config("grpo"), tmp_path, backbone=backbone)
    records = [r for r in untimed(tmp_path) if r["kind"] == "train"]
    assert all(record["gradient_norm"] > 1e-3 for record in records)
    assert any(record["ratio_max"] != 1.0 for record in records)


@pytest.mark.parametrize("tokens", [1, 100])
def test_micro_batches_change_nothing(tokens: int, make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    whole, cut = make_config("ppo"), make_config("ppo", engine={"micro_batch_tokens": tokens, "sample_rows": 5})
    train(whole, tmp_path / "whole", backbone=backbone)
    train(cut, tmp_path / "cut", backbone=backbone)
    assert_same_run(tmp_path / "whole", tmp_path / "cut", backbone)


@pytest.mark.parametrize(("critic", "passes"), [("head", 1), ("adapter", 2)])
def test_of_a_pass_nothing_is_left_when_the_next_one_begins(
    critic: str,
    passes: int,
    make_config: MakeConfig,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph holds its adapters: those of earlier passes are gone. A critic of its own has the policy's beside it."""
    stacks: list[Any] = []
    left: list[list[int]] = []
    forward = local.policy_forward

    def watched(backbone: Backbone, stack: Any, *args: Any, **kwargs: Any) -> Any:
        if stack is not None and stack.requires_grad:
            left.append([i for i, other in enumerate(stacks) if other() is not None])
            stacks.append(weakref.ref(stack))
        return forward(backbone, stack, *args, **kwargs)

    monkeypatch.setattr(local, "policy_forward", watched)
    settings = {"train": {"critic": critic}, "engine": {"micro_batch_tokens": 30}}
    train(make_config("ppo", **settings), tmp_path, backbone=backbone)
    assert len(left) > 6 * passes  # 3 steps of 2 updates, in more than one pass each
    assert left == [[] if i % passes == 0 else [i - 1] for i in range(len(left))]


def test_a_seed_gives_every_objective_the_same_first_rollout(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    runs = {
        f"{name}{seed}": (make_config(name, seed), tmp_path / f"{name}{seed}") for name in SAMPLED for seed in (0, 1)
    }
    train_fleet(runs, backbone=backbone)

    def first(run: str) -> list[str]:
        samples = read_lines(tmp_path / run / "samples.jsonl")
        return [s["prompt"] + s["completion"] for s in samples if (s["kind"], s["step"]) == ("train", 1)]

    assert all(first(f"{name}0") == first("grpo0") for name in SAMPLED)
    assert first("grpo1") != first("grpo0")


@pytest.mark.parametrize("setting", [{"every": 1}, {"prompts": 3}, {"samples": 2}])
def test_evaluating_leaves_training_as_it_is(
    setting: dict[str, int], make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    train(make_config("grpo"), tmp_path / "a", backbone=backbone)
    train(make_config("grpo", evaluation=setting), tmp_path / "b", backbone=backbone)
    a, b = ([r for r in untimed(tmp_path / x) if r["kind"] == "train"] for x in "ab")
    assert [r["loss"] for r in a] == pytest.approx([r["loss"] for r in b], abs=TOLERANCE)
    assert [r["accuracy"] for r in a] == [r["accuracy"] for r in b]


def test_a_failed_run_stops_with_its_state_and_the_others_go_on(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    bad = make_config("reinforce", seed=0, optimizer={"lr": 1e38})
    good = make_config("grpo", seed=1)
    summaries = train_fleet({"bad": (bad, tmp_path / "bad"), "good": (good, tmp_path / "good")}, backbone=backbone)
    assert summaries["bad"]["state"] == "failed"
    assert "gradient norm nan" in summaries["bad"]["failure"]
    assert summaries["bad"]["after"]["step"] == summaries["bad"]["step"]  # a failed run is scored where it stopped
    assert (tmp_path / "bad" / "state.pt").exists() and (tmp_path / "bad" / "adapter").exists()
    assert summaries["good"]["state"] == "done"
    train(good, tmp_path / "alone", backbone=backbone)
    assert_same_run(tmp_path / "alone", tmp_path / "good", backbone)
    logs = (tmp_path / "bad/metrics.jsonl").read_bytes()
    again = train(bad, tmp_path / "bad", backbone=backbone, resume=True)  # a failure is an outcome
    assert again == summaries["bad"] and (tmp_path / "bad/metrics.jsonl").read_bytes() == logs


def test_a_broken_policy_fails_though_all_its_groups_are_silent(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Step 1 breaks it. From then on its responses are all equal, so nothing but their log-probs tells."""
    config = make_config("dr_grpo", train={"minibatches": 1}, optimizer={"lr": 1e38})
    summary = train(config, tmp_path, backbone=backbone)
    assert summary["state"] == "failed" and "step 1: the policy's log-probs are not finite" in summary["failure"]


def test_runs_of_a_fleet_share_task_and_backbone(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    runs = {
        "a": (make_config("grpo"), tmp_path / "a"),
        "b": (make_config("ppo", task={"name": "sort"}), tmp_path / "b"),
    }
    with pytest.raises(UserError, match="share one task"):
        train_fleet(runs, backbone=backbone)
    assert not any(tmp_path.iterdir())


def test_the_sampler_and_the_trainer_agree(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """Before the first update of a rollout every ratio is 1: 4-bit weights, cached decoding and padding included."""
    train(make_config("gspo"), tmp_path, backbone=backbone)
    gaps = [record["sampler_gap"] for record in untimed(tmp_path) if record["kind"] == "train"]
    assert max(gaps) < 2e-5


def test_a_temperature_is_the_trainers_as_well(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """In one fleet with another temperature, so that each has its own."""
    once = {"steps": 1, "minibatches": 1}
    runs = {f"{t}": (make_config("ppo", train=once | {"temperature": t}), tmp_path / f"{t}") for t in (0.6, 1.4)}
    train_fleet(runs, backbone=backbone)
    cold, warm = (next(r for r in untimed(folder) if r["kind"] == "train") for _, folder in runs.values())
    assert max(cold["sampler_gap"], warm["sampler_gap"]) < 2e-5 and cold["entropy"] < warm["entropy"]
    assert max(cold["kl_ref"], warm["kl_ref"]) < 1e-6  # the reference is the untrained policy, at its temperature


def test_recomputed_old_log_probs_start_at_ratio_one(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config("gspo", train={"old_logp": "recompute", "minibatches": 1})
    train(config, tmp_path, backbone=backbone)
    records = [record for record in untimed(tmp_path) if record["kind"] == "train"]
    assert all(record["ratio_max"] == pytest.approx(1, abs=1e-6) and record["clip_fraction"] == 0 for record in records)
    assert all(0 < record["sampler_gap"] < 2e-5 for record in records)  # still that of the sampler


def test_one_update_per_rollout_tells_its_own_old_log_probs(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No forward pass for them beforehand; with a second update, or a part that needs them, there is one."""
    scored: list[int] = []
    score = local.LocalEngine._score
    monkeypatch.setattr(
        local.LocalEngine, "_score", lambda self, calls: scored.append(len(calls)) or score(self, calls)
    )
    for name, minibatches, expected in (("gspo", 1, 0), ("gspo", 2, 4), ("dapo", 1, 0), ("kl_cov", 1, 4)):
        scored.clear()
        config = make_config(name, train={"old_logp": "recompute", "minibatches": minibatches, "steps": 4})
        train(config, tmp_path / f"{name}{minibatches}", backbone=backbone)
        assert len(scored) == expected
    records = [record for record in untimed(tmp_path / "gspo1") if record["kind"] == "train"]
    assert all(record["ratio_min"] == record["ratio_max"] == 1 and record["kl_old"] == 0 for record in records)


def test_dynamic_sampling_fills_the_step_and_pays_for_it(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    train(make_config("dapo", train={"group_size": 2}), tmp_path / "dapo", backbone=backbone)
    train(make_config("gspo", train={"group_size": 2}), tmp_path / "gspo", backbone=backbone)
    dapo, gspo = untimed(tmp_path / "dapo")[-1], untimed(tmp_path / "gspo")[-1]
    assert dapo["prompts_sampled"] - dapo["prompts_discarded"] == gspo["prompts_sampled"] == 3 * 4
    assert dapo["prompts_discarded"] > 0
    assert dapo["tokens_sampled"] - dapo["tokens_discarded"] == dapo["tokens_trained"]
    assert dapo["tokens_sampled"] > dapo["tokens_trained"] > 0


def test_a_step_whose_groups_are_all_silent_makes_no_update(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    always_right = "tests.training.rewards:one"
    config = make_config("dapo", task={"accuracy": always_right}, train={"steps": 1})
    summary = train(config, tmp_path, backbone=backbone)
    assert (summary["updates"], summary["tokens_trained"], summary["state"]) == (0, 0, "done")
    assert summary["prompts_discarded"] == summary["prompts_sampled"] == 10 * 4  # ten rounds, then it gives up
    record = untimed(tmp_path)[1]
    assert record["kind"] == "train" and record["rounds"] == 10
    assert record["loss"] is record["gradient_norm"] is record["sampler_gap"] is None


def test_a_step_that_keeps_no_prompt_is_gone_through_whatever_the_objective_needs(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """No reward is known, so nothing is kept: alone, and beside runs that have something to score."""
    unknown = {"reward": "tests.training.rewards:unknown"}
    for name in ("ppo", "grpo"):
        config = make_config(name, task=unknown, train={"steps": 1, "old_logp": "recompute"})
        summary = train(config, tmp_path / name, backbone=backbone)
        assert (summary["state"], summary["updates"], summary["tokens_trained"]) == ("done", 0, 0)
        assert summary["before"]["accuracy"] == summary["after"]["accuracy"]
        assert summary["prompts_discarded"] == summary["prompts_sampled"] == 4
    some = make_config("dapo[kl=k3]", train={"group_size": 2, "prompts_per_step": 2, "steps": 4})
    lone = some.model_copy(update={"objective": get("dapo[kl=k3,select.max_rounds=1]")})
    both = {"some": (some, tmp_path / "some"), "lone": (lone, tmp_path / "lone")}
    train_fleet(both, backbone=backbone)
    train(lone, tmp_path / "alone", backbone=backbone)
    assert_same_run(tmp_path / "alone", tmp_path / "lone", backbone)
    assert any(r["gradient_norm"] is None for r in untimed(tmp_path / "lone") if r["kind"] == "train")


def test_a_response_without_a_reward_is_no_response(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Reward None at every second response: it enters neither the group's mean nor the loss nor its normalizer."""
    config = make_config("grpo", task={"reward": "tests.training.rewards:every_second_unknown"}, train={"steps": 1})
    summary = train(config, tmp_path, backbone=backbone)
    assert 0 < summary["tokens_trained"] <= summary["tokens_sampled"] * 0.7
