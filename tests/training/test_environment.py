"""Several turns: holes in the learn mask, noise by absolute position, a reward per turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from objectives import get
from rlzoo.config.run import RunConfig
from rlzoo.engine.protocol import SampleRequest, ScoreRequest
from rlzoo.model.backbone import Backbone
from rlzoo.store.run_folder import RunFolder
from rlzoo.tasks import Problem
from rlzoo.tasks.environment import Answer, Environment
from rlzoo.training.client import Client
from rlzoo.training.credit import assign_credit
from rlzoo.training.launch import train
from rlzoo.training.responses import converse, respond
from rlzoo.training.rollout import roll_out
from rlzoo.training.trajectories import Rollout
from tests.engine.clients import run_client
from tests.models import random_adapter
from tests.runs import EvenTask

MakeConfig = Callable[..., RunConfig]
SAID = "no?"


class TwoTurns:
    """Asks a second time. A response is worth 1 if its first character has an even code, in the second turn half."""

    def __init__(self, task: EvenTask, problem: Problem, said: str = SAID) -> None:
        self.task, self.problem, self.said, self.turn = task, problem, said, 0

    async def reset(self) -> str:
        return self.problem.prompt

    async def step(self, response: str) -> Answer:
        self.turn += 1
        right = self.task.grade(self.problem, response)
        return Answer(right / self.turn, right, done=self.turn == 2, text=self.said)


class Talk(EvenTask):
    kind, several_turns, said = "talk", True, SAID

    def environment(self, problem: Problem) -> Environment:
        return TwoTurns(self, problem, self.said)


def request(client: Client, length: int = 12) -> SampleRequest:
    return SampleRequest(client.policy, (), 4, length, seed=5, step=2, prompt_keys=range(5), temperature=0.9)


def talked(backbone: Backbone, task: EvenTask, length: int = 12) -> Rollout:
    def job(client: Client) -> Any:
        return roll_out(client, backbone, task, get("reinforce").select, request(client, length))

    rollout, *_ = run_client(backbone, job, random_adapter(backbone, 3))
    return rollout


def turns_of(rollout: Rollout, row: int) -> list[list[int]]:
    """Positions of each turn's learned tokens."""
    learn, turn = rollout.tokens.learn_NT[row], rollout.turn_NT[row]
    return [((turn == k) & learn).nonzero().flatten().tolist() for k in range(int(turn[learn].max()) + 1)]


def test_what_the_environment_says_exists_and_is_not_learned_from(backbone: Backbone) -> None:
    rollout = talked(backbone, Talk("talk"))
    tokens, said, twice = rollout.tokens, backbone.encode_continuation(SAID), 0
    for row in range(len(tokens)):
        turns = turns_of(rollout, row)
        hole = (tokens.exists_NT[row] & ~tokens.learn_NT[row]).nonzero().flatten().tolist()
        assert len(turns) == (2 if hole else 1)
        if hole:
            twice += 1
            assert tokens.token_NT[row, hole].tolist() == said
            assert turns[0][-1] + 1 == hole[0] and hole[-1] + 1 == turns[1][0]
            assert int(tokens.token_NT[row, turns[0][-1]]) in backbone.end_ids
    assert twice > 5 and int(tokens.exists_NT.sum(1).max()) <= 12
    assert torch.equal(rollout.mask_NT, tokens.learn_NT) and not rollout.logp_NT[~tokens.learn_NT].any()


def test_the_learned_log_probs_are_the_plain_models_on_the_whole_sequence(backbone: Backbone) -> None:
    """The sampler's, and those of a score request (reference policy, packed): transformers' own forward pass over
    prompt, turns and what stands between them, every row alone and without padding."""
    task = Talk("talk")

    def job(client: Client) -> Any:
        async def both() -> Any:
            rollout, *_ = await roll_out(client, backbone, task, get("reinforce").select, request(client))
            return rollout, await client.score(ScoreRequest(client.policy, rollout.tokens, 0.9))

        return both()

    rollout, scored = run_client(backbone, job)
    tokens = rollout.tokens
    for row in range(len(tokens)):
        prompt = tokens.prompts[int(tokens.group_N[row])]
        whole = torch.tensor([[*prompt, *tokens.token_NT[row][tokens.exists_NT[row]].tolist()]])
        with torch.no_grad():
            logp = (backbone.model(input_ids=whole).logits[0].float() / 0.9).log_softmax(dim=1)
        by_hand = logp[:-1].gather(1, whole[0, 1:, None])[len(prompt) - 1 :, 0]
        learn = tokens.learn_NT[row, : len(by_hand)]
        for found in (rollout.logp_NT, scored.logp_NT):
            torch.testing.assert_close(found[row, : len(by_hand)], by_hand * learn, rtol=0, atol=5e-4)
    assert (tokens.exists_NT & ~tokens.learn_NT).any()


def test_a_reward_per_turn_stands_on_the_turns_last_learned_token(backbone: Backbone) -> None:
    task = Talk("talk")
    rollout = talked(backbone, task)
    for row in range(len(rollout.tokens)):
        turns, wanted = turns_of(rollout, row), torch.zeros(rollout.reward_NT.shape[1])
        for number, places in enumerate(turns, start=1):
            text = backbone.decode(rollout.tokens.token_NT[row, places].tolist())
            right = task.grade(rollout.problems[0], text)
            wanted[places[-1]] = right / number
        assert torch.equal(rollout.reward_NT[row], wanted) and rollout.reward_N[row] == wanted.sum()
        assert rollout.accuracy_N[row] == right  # the last verdict
    assert len(set(rollout.reward_N.tolist())) == 4  # 0, 1/2, 1, 3/2


def test_the_credit_of_a_turn_is_what_follows_it(backbone: Backbone) -> None:
    """Reward to go without discount: before the first turn's end both rewards, after it the second alone."""

    def job(client: Client) -> Any:
        async def both() -> Any:
            objective = get("ppo[shape=none,advantage.lam=1,advantage.whiten=false]")
            rollout, *_ = await roll_out(client, backbone, Talk("talk"), objective.select, request(client))
            settings = {"step": 0, "max_length": 12, "temperature": 0.9, "recompute": False}
            return await assign_credit(client, objective, rollout, **settings)

        return both()

    assigned = run_client(backbone, job)
    rollout, advantage_NT = assigned.rollout, assigned.credit.advantage_NT
    assert not advantage_NT[~rollout.tokens.learn_NT].any()
    for row in range(len(rollout.tokens)):
        turns = turns_of(rollout, row)
        rewards = [float(rollout.reward_NT[row, places[-1]]) for places in turns]
        for number, places in enumerate(turns):
            assert advantage_NT[row, places].tolist() == pytest.approx([sum(rewards[number:])] * len(places))


def test_a_task_of_one_turn_is_an_environment_of_one_step(backbone: Backbone) -> None:
    """Sampled and scored through the environment, the same as without it."""

    def job(client: Client) -> Any:
        async def both() -> Any:
            task = EvenTask("even")
            problems = [task.problem("train", index) for index in range(5)]
            asked = replace(request(client), prompts=[backbone.encode(problem.prompt) for problem in problems])
            (plain,) = await respond(client, backbone, task, problems, [asked])
            return plain, await converse(client, backbone, task, problems, asked)

        return both()

    plain, same = run_client(backbone, job, random_adapter(backbone, 3))
    for name in ("token_NT", "exists_NT", "learn_NT"):
        width = plain.tokens.token_NT.shape[1]
        assert torch.equal(getattr(plain.tokens, name), getattr(same.tokens, name)[:, :width])
    for name in ("logp_NT", "reward_N", "accuracy_N", "finished_N", "reward_NT"):
        torch.testing.assert_close(getattr(plain, name), getattr(same, name))
    assert plain.completions == same.completions


def test_noise_is_named_by_the_absolute_position(backbone: Backbone) -> None:
    """Tokens are drawn at position t after the prompt with the noise of t, whoever wrote what stands before: sampled on
    from the middle of a response, the rest of it comes out again."""

    def job(client: Client) -> Any:
        async def both() -> Any:
            prompts = [backbone.encode(f"t{i}=") for i in range(5)]
            (whole,) = await client.sample(replace(request(client), prompts=prompts))
            long = [row for row in range(20) if int(whole.mask_NT[row].sum()) >= 4]
            cut = [1 + row % 3 for row in long]
            rows = list(zip(long, cut, strict=True))
            again = replace(
                request(client),
                group_size=1,
                prompts=[[*prompts[row // 4], *whole.response_NT[row, :n].tolist()] for row, n in rows],
                prompt_keys=[row // 4 for row in long],
                samples=[row % 4 for row in long],
                positions=cut,
            )
            return whole, rows, (await client.sample(again))[0]

        return both()

    whole, rows, again = run_client(backbone, job, random_adapter(backbone, 3))
    assert len(rows) > 5
    for (row, n), response, mask in zip(rows, again.response_NT, again.mask_NT, strict=True):
        assert response[mask].tolist() == whole.response_NT[row][whole.mask_NT[row]].tolist()[n:]


def test_it_stops_when_its_tokens_are_used_up(backbone: Backbone) -> None:
    """What the environment would say does not fit: nothing of it is kept, and the trajectory is not finished."""
    rollout = talked(backbone, Talk("talk"), length=3)
    assert torch.equal(rollout.tokens.exists_NT, rollout.tokens.learn_NT)
    assert not rollout.finished_N.any() and (rollout.turn_NT == 0).all()


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_a_run_of_several_turns(name: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    config = make_config(name, train={"max_new_tokens": 12, "old_logp": "recompute"})
    summary = train(config, tmp_path, backbone=backbone, task=Talk("talk"))
    assert summary["state"] == "done" and summary["tokens_trained"] == summary["tokens_sampled"] > 0
    steps = [record for record in RunFolder.open(tmp_path).read_metrics() if record["kind"] == "train"]
    assert all(0 < step["sampler_gap"] < 2e-5 and step["gradient_norm"] > 1e-3 for step in steps)
    assert max(step["length"] for step in steps) <= 12
