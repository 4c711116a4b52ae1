"""Settings: closed, and nothing is silently ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from objectives import get, names
from rlzoo.config.comparison import CompareConfig, shared_part
from rlzoo.config.run import OptimizerSettings, RunConfig, TrainSettings
from rlzoo.training.loop import recomputes_old_logp
from rlzoo.training.schedule import rate_factor

MakeConfig = Callable[..., RunConfig]


def comparison(**changes: Any) -> CompareConfig:
    return CompareConfig.model_validate({"objectives": ["reinforce", "ppo", "grpo", "dapo", "gspo"]} | changes)


def test_a_comparison_is_every_objective_with_every_seed() -> None:
    runs = comparison(seeds=2).runs()
    assert [run.name for run in runs[:3]] == ["reinforce/seed0", "reinforce/seed1", "ppo/seed0"]
    assert len(runs) == 10
    assert len({run.train for run in runs}) == 1


@pytest.mark.parametrize("word", ["all", ["all"]])
def test_all_is_all_of_the_list(word: object) -> None:
    found = [objective.name for objective in comparison(objectives=word).objectives]
    taught = {"demonstration", "teacher_logp"}
    left_out = {name for name in names() if get(name).group_size is not None or get(name).needs & taught}
    assert set(names()) - set(found) == left_out and {"sft", "distill"} <= left_out
    assert found == [name for name in names() if name in found]


def test_the_stored_configuration_makes_the_run_again(make_config: MakeConfig) -> None:
    config = make_config("dapo[surrogate.high=0.4]", seed=3)
    assert RunConfig.model_validate(config.stored()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["grppo"]}, "did you mean 'grpo'"),
        ({"objectives": ["grpo[surrogate.hgih=1]"]}, "did you mean 'high'"),
        ({"objectives": ["grpo", "grpo"]}, "once"),
        ({"seeds": []}, "name at least one"),
        ({"seeds": [0, 0]}, "once"),
        ({"objectives": []}, "at least one"),
        ({"train": {"stepz": 3}}, "stepz"),
        ({"train": {"group_size": 1}}, "grpo compares the responses to one prompt .* 2 or more, got 1"),
        ({"objectives": ["grpo_2", "gspo"]}, "grpo_2 is meant for 2 responses per prompt, and train.group_size is 8"),
        ({"objectives": ["grpo[advantage.size=4]"]}, "is meant for 4 responses per prompt"),
        ({"objectives": ["grpo", "grpo_2"], "train": {"group_size": 2}}, "grpo and grpo_2 are one algorithm under two"),
        ({"train": {"minibatches": 9, "prompts_per_step": 8}}, "at most one per prompt"),
        ({"train": {"temperature": 0}}, "greater than 0"),
        ({"objectives": ["grpo"], "train": {"critic": "head"}}, r"none of \['grpo'\] has a critic"),
        ({"optimizer": {"critic_lr": 0.1}}, "set train.critic = 'adapter' too"),
        ({"objectives": ["grpo"], "optimizer": {"critic_lr": 0.1}}, "set train.critic = 'adapter' too"),
        ({"optimizer": {"warmup_steps": 60}, "train": {"steps": 60}}, "60 never ends in 60 steps"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "less than 1"),
        ({"optimizer": {"max_grad_norm": float("inf")}}, "finite"),
        ({"objectives": ["grpo", "grpo[surrogate.high=0.2]"]}, "one algorithm under two names"),
        (
            {"objectives": ["grpo[correction=token]"], "train": {"old_logp": "sampler"}},
            r"grpo\[correction=token\] weighs .* train.old_logp = 'recompute'",
        ),
        (
            {"objectives": ["dapo[shape.max_length=40]"], "train": {"max_new_tokens": 32}},
            "beyond 32 tokens, which no response of at most 32 has: lower max_length",
        ),
        ({"objectives": ["gspo[ratio=token"]}, r"ends with its changes in brackets: NAME\[COLUMN=VALUE,...\]"),
        ({"evaluation": {"greedy": True, "samples": 4}}, "one response per prompt"),
    ],
)
def test_misfits_are_refused_with_the_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        comparison(**changes)


def test_what_can_act_is_accepted(make_config: MakeConfig) -> None:
    """Lmax 39 punishes from 31.2 tokens on; a correction has the trainer's own old log-probs to weigh."""
    assert make_config("dapo[shape.max_length=39]", train={"max_new_tokens": 32})
    assert make_config("grpo[correction=token]")


def test_old_log_probs_are_recomputed_where_the_samplers_would_not_do(make_config: MakeConfig) -> None:
    full, half = "float32", "bfloat16"
    plain, weighing, taught = (make_config(name) for name in ("gspo", "grpo[correction=token]", "sft"))
    assert [recomputes_old_logp(plain, dtype) for dtype in (full, half)] == [False, True]
    assert [recomputes_old_logp(weighing, dtype) for dtype in (full, half)] == [True, True]
    assert [recomputes_old_logp(taught, dtype) for dtype in (full, half)] == [False, False]
    for chosen in ("sampler", "recompute"):
        said = make_config("gspo", train={"old_logp": chosen})
        assert [recomputes_old_logp(said, dtype) for dtype in (full, half)] == [chosen == "recompute"] * 2


def test_rows_that_the_schedule_makes_identical_are_refused() -> None:
    once = {"minibatches": 1, "epochs": 1}
    with pytest.raises(ValidationError, match=r"grpo and grpo\[surrogate.high=0.28\] are one algorithm"):
        comparison(objectives=["grpo", "grpo[surrogate.high=0.28]"], train=once)
    with pytest.raises(ValidationError, match="are one algorithm"):
        comparison(objectives=["gspo", "grpo[kl=none]"], train=once)
    with pytest.raises(ValidationError, match="are one algorithm"):
        comparison(objectives=["ppo", "ppo[value=plain]"], train=once)
    with pytest.raises(ValidationError, match="are one algorithm"):
        comparison(objectives=["gspo", "gspo[surrogate=clipped_weight]"], train=once)
    comparison(objectives=["gspo", "grpo"], train=once)  # the KL tells them apart
    comparison(train=once)


def test_a_cap_below_one_still_acts_at_ratio_one() -> None:
    """A cap of 5 never touches a ratio of 1, so the row is its base again; a cap of 0.5 halves every gradient."""
    once = {"minibatches": 1}
    inert, acting = ([get("gspo"), get("gspo").but(surrogate={"kind": "clipped_weight", "cap": c})] for c in (5, 0.5))
    with pytest.raises(ValidationError, match="are one algorithm"):
        comparison(objectives=inert, train=once)
    assert comparison(objectives=acting, train=once).objectives == tuple(acting)


def test_the_critics_settings_go_to_those_who_have_one() -> None:
    runs = comparison(train={"critic": "adapter"}, optimizer={"critic_lr": 0.01}, seeds=1).runs()
    critics = {run.objective.name: (run.train.critic, run.optimizer.critic_lr) for run in runs}
    assert critics["ppo"] == ("adapter", 0.01) and critics["grpo"] == (None, None)


def test_what_a_comparison_shares_is_what_its_runs_store_alike() -> None:
    chosen = comparison(train={"critic": "adapter"}, optimizer={"critic_lr": 0.01}, seeds=1)
    assert all(shared_part(run.stored()) == chosen.shared() for run in chosen.runs())
    assert chosen.shared() == comparison(objectives=["grpo"], seeds=3).shared()
    assert chosen.shared() != comparison(train={"critic": "adapter", "steps": 3}).shared()
    assert chosen.shared() != comparison(task="add").shared()
    assert chosen.shared() == comparison(engine={"micro_batch_tokens": 1}).shared()


def test_learning_rate_schedules() -> None:
    def factors(**settings: Any) -> list[float]:
        return [rate_factor(OptimizerSettings.model_validate(settings), step, 6) for step in range(6)]

    assert factors() == [1.0] * 6
    assert factors(warmup_steps=2, schedule="linear") == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert factors(schedule="cosine")[3] == pytest.approx(0.5)  # half way: (1 + cos(pi / 2)) / 2


def test_updates_per_rollout() -> None:
    assert TrainSettings(minibatches=4, epochs=2).updates_per_rollout == 8
