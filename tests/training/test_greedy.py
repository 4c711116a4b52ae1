"""Greedy responses in addition to samples: decoded in the same batch, counted, scored, and subtracted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import get
from rlzoo.config.run import RunConfig
from rlzoo.engine import local, sampler
from rlzoo.engine.protocol import SampleRequest
from rlzoo.model.backbone import Backbone
from rlzoo.training.client import Client
from rlzoo.training.launch import train, train_fleet
from rlzoo.training.rollout import Account, Rollout, roll_out
from tests.engine.clients import run_client
from tests.models import random_adapter
from tests.runs import EvenTask
from tests.sampling import named, sample
from tests.training.same import assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]


def rolled_out(backbone: Backbone, greedy: bool, select: str = "all") -> tuple[Rollout, Rollout, Account]:
    objective = get("reinforce").but(select=select)

    def job(client: Client) -> Any:
        request = SampleRequest(client.policy, (), 4, 6, seed=5, step=2, prompt_keys=range(5))
        needs = frozenset({"greedy"} if greedy else ())
        return roll_out(client, backbone, EvenTask("even"), objective.select, request, needs=needs)

    return run_client(backbone, job, random_adapter(backbone, 3))


def test_the_greedy_reward_is_that_of_the_likeliest_tokens(backbone: Backbone) -> None:
    """Asked for alone, one prompt at a time: the same responses, so the same verdicts and the same tokens paid."""
    rollout, _, account = rolled_out(backbone, greedy=True)
    plain, _, cheaper = rolled_out(backbone, greedy=False)
    assert torch.equal(rollout.tokens.token_NT, plain.tokens.token_NT) and plain.greedy_N is None
    task, theta, tokens = EvenTask("even"), random_adapter(backbone, 3), 0
    rewards: list[float] = []
    for problem in rollout.problems:
        request = SampleRequest(named(theta), [backbone.encode(problem.prompt)], 1, 6, 0, 0, [0], greedy=True)
        (answer,) = sample(backbone, [request])
        tokens += int(answer.mask_NT.sum())
        rewards += 4 * [task.grade(problem, backbone.decode(answer.response_NT[0][answer.mask_NT[0]]))]
    assert rollout.greedy_N is not None and rollout.greedy_N.tolist() == rewards and len(set(rewards)) == 2
    assert account.tokens_sampled == cheaper.tokens_sampled + tokens
    assert account.tokens_discarded == cheaper.tokens_discarded == 0


def test_selection_keeps_the_greedy_reward_of_what_it_keeps(backbone: Backbone) -> None:
    rollout, first, _ = rolled_out(backbone, greedy=True, select="mixed")
    assert rollout.greedy_N is not None and first.greedy_N is not None
    of = {problem.prompt: first.greedy_N[4 * i].item() for i, problem in enumerate(first.problems)}
    found = {problem.prompt: rollout.greedy_N[4 * i].item() for i, problem in enumerate(rollout.problems)}
    assert len(found) == 5 and len(of.keys() & found.keys()) < 5
    assert all(found[prompt] == of[prompt] for prompt in of.keys() & found.keys())


def test_a_group_of_one_will_do_and_the_run_is_the_run_alone(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    configs = {
        "remax/0": make_config("remax", train={"group_size": 1}),
        "mixed/0": make_config("remax[select=mixed]"),
        "grpo/1": make_config("grpo", 1),
    }
    train_fleet({name: (config, tmp_path / "fleet" / name) for name, config in configs.items()}, backbone=backbone)
    for name in ("remax/0", "mixed/0"):
        train(configs[name], tmp_path / "alone" / name, backbone=backbone)
        assert_same_run(tmp_path / "alone" / name, tmp_path / "fleet" / name, backbone)
    records = [r for r in untimed(tmp_path / "fleet/remax/0") if r["kind"] == "train"]
    assert all(0 <= record["greedy_reward"] <= 1 for record in records)
    assert records[-1]["tokens_sampled"] > records[-1]["tokens_trained"] > 0


def test_a_run_stopped_after_a_step_ends_as_if_it_had_not(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(_: str, record: dict[str, Any]) -> None:
        if (record["kind"], record["step"]) == ("train", 2):
            raise Killed

    config = make_config("remax")
    with pytest.raises(Killed):
        train(config, tmp_path / "killed", backbone=backbone, on_record=kill)
    train(config, tmp_path / "killed", backbone=backbone, resume=True)
    train(config, tmp_path / "whole", backbone=backbone)
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")


def test_samples_and_greedy_responses_of_all_runs_are_one_batch(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def counted(backbone: Backbone, requests: list[SampleRequest], *settings: Any) -> Any:
        batches.append(len(requests))
        return sampler.sample(backbone, requests, *settings)

    monkeypatch.setattr(local, "sample", counted)
    runs = {str(seed): (make_config("remax", seed, train={"steps": 2}), tmp_path / str(seed)) for seed in (0, 1)}
    train_fleet(runs, backbone=backbone)
    # The first evaluation, of the base for both; two rollouts, samples and greedy responses; the last evaluation.
    assert batches == [1, 4, 4, 2]
