"""From rollout to credit: the trainer computes exactly the inputs that the objective needs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from objectives import Objective, get
from rlzoo.engine.protocol import BASE, PolicyRef, Scored, ScoreRequest
from rlzoo.training.client import Client
from rlzoo.training.credit import Assigned, assign_credit
from rlzoo.training.rollout import Rollout
from tests.training.test_credit import rollout_of


class FixedClient:
    """Answers scores with constants: policy log-probs -2, reference -3, critic's values 0.25."""

    policy = PolicyRef("run", 3)

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def score(self, request: ScoreRequest) -> Scored:
        assert request.policy in (self.policy, BASE) and request.temperature == 0.5
        reference = request.policy == BASE
        self.asked += ["reference"] if reference else sorted(request.want)
        mask_NT = request.tokens.learn_NT.float()
        logp_NT = (-3.0 if reference else -2.0) * mask_NT
        return Scored(logp_NT if "logp" in request.want else None, 0.25 * mask_NT if "value" in request.want else None)


def assign(objective: Objective, rollout: Rollout, recompute: bool = False) -> tuple[Assigned, list[str]]:
    client = FixedClient()
    coroutine = assign_credit(
        cast("Client", client),
        objective,
        rollout,
        step=0,
        max_length=10,
        temperature=0.5,
        recompute=recompute,
    )
    try:
        cast("Any", coroutine).send(None)
    except StopIteration as stop:
        return stop.value, client.asked
    raise AssertionError("it waits for something")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("reinforce", []),
        ("reinforce[advantage.baseline=none]", []),
        ("gspo", []),
        ("dapo", []),
        ("grpo", ["reference"]),
        ("ppo", ["value", "reference"]),
        ("ppo[shape=none]", ["value"]),
    ],
)
def test_exactly_what_is_needed_is_computed(name: str, asked: list[str]) -> None:
    made, found = assign(get(name), rollout_of([[0.0, 1.0]], [[1, 2]]))
    assert found == asked
    given = made.given("ref_logp_NT") is not None, made.given("value_NT") is not None
    assert given == ("reference" in asked, "value" in asked)


def advantages(made: Assigned) -> Tensor:
    return made.credit.advantage_NT


def test_the_kl_in_the_reward_by_hand() -> None:
    """Sampler's log-probs are -1, the reference's -3: every token is charged 0.1 * 2. Lambda 1, no values: to go."""
    row = get("ppo[shape.coef=0.1,advantage.lam=1,advantage.whiten=false]")
    made, _ = assign(row, rollout_of([[1.0, 0.0]], [[2, 1]]))
    # returns 1 - 0.4, 1 - 0.2 and 0 - 0.2; minus the value 0.25
    assert advantages(made).tolist() == [pytest.approx([0.35, 0.55]), pytest.approx([-0.45, 0.0])]
    assert made.credit.return_NT is not None
    assert made.credit.return_NT.tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([-0.2, 0.0])]
    assert made.metrics["kl_state"] == 0.1


def test_an_adaptive_coefficient_acts_from_the_next_rollout_on_and_the_record_has_the_one_that_acted() -> None:
    """KL per response is 2 * 1.5 = 3 nats, over a target of 1: more than 20% off, so the coefficient grows by 2%."""
    row = get("ppo[shape.coef=0.1,shape.target=1.0,advantage.lam=1,advantage.whiten=false]")
    row = row.at({"shape.kl": 0.2})
    made, _ = assign(row, rollout_of([[1.0, 0.0]], [[2, 1]]))
    assert advantages(made)[0, 0] == pytest.approx(1 - 0.8 - 0.25)
    assert made.metrics["kl_state"] == 0.2 and row.next_states(made.view) == {"shape.kl": pytest.approx(0.2 * 1.02)}


def test_old_log_probs_may_be_recomputed_and_the_gap_is_told() -> None:
    rollout = rollout_of([[0.0, 1.0]], [[1, 2]])
    made, asked = assign(get("gspo"), rollout, recompute=True)
    assert asked == ["logp"] and torch.equal(made.old_logp_NT, -2.0 * rollout.mask_NT)
    assert made.metrics["sampler_gap"] == 1.0
    made, _ = assign(get("gspo"), rollout)
    assert torch.equal(made.old_logp_NT, rollout.logp_NT) and "sampler_gap" not in made.metrics


def test_the_kl_in_the_reward_starts_from_the_old_log_probs_too() -> None:
    row = get("ppo[shape.coef=0.1,advantage.lam=1,advantage.whiten=false]")
    made, _ = assign(row, rollout_of([[1.0, 0.0]], [[1, 1]]), recompute=True)
    assert advantages(made)[0, 0] == pytest.approx(1 - 0.1 * (-2 + 3) - 0.25)


def test_a_punishment_of_length_counts_from_the_longest_response_allowed() -> None:
    row = get("dapo").but(advantage={"kind": "group", "scale": "none"})
    made, _ = assign(row, rollout_of([[1.0, 1.0]], [[9, 2]]))  # of 10, the last two are punished: 9 costs 1/2
    assert advantages(made)[:, 0].tolist() == pytest.approx([-0.25, 0.25])


def test_a_response_without_a_reward_is_in_no_mean() -> None:
    row = get("reinforce[advantage.baseline=batch_mean]")
    made, _ = assign(row, rollout_of([[math.nan, 1.0], [0.5, math.nan]], [[1, 2], [2, 3]]))
    assert advantages(made)[:, 0].tolist() == pytest.approx([0, 0.25, -0.25, 0])
    assert not advantages(made)[3].any()
    assert made.metrics["advantage_mean"] == 0 and made.metrics["silent_groups"] == 1


def test_a_greedy_baseline_by_hand() -> None:
    """Rewards 1, 0 beside greedy 1, and 0, 1 beside a greedy response that could not be scored."""
    greedy_N = torch.tensor([1.0, 1.0, math.nan, math.nan])
    made, _ = assign(get("remax"), replace(rollout_of([[1.0, 0.0], [0.0, 1.0]], [[2, 1], [1, 1]]), greedy_N=greedy_N))
    assert advantages(made).tolist() == [[0, 0], [-1, 0], [0, 0], [1, 0]]
    assert made.metrics["greedy_reward"] == 1
    assert "greedy_reward" not in assign(get("gspo"), rollout_of([[1.0, 0.0]], [[2, 1]]))[0].metrics


@pytest.mark.parametrize("name", ["reinforce", "ppo", "grpo", "dapo", "gspo", "ppo[shape.target=1.0]"])
@pytest.mark.parametrize("recompute", [False, True])
def test_nothing_kept_is_nothing_assigned(name: str, recompute: bool) -> None:
    empty = rollout_of([[0.0, 1.0]], [[1, 2]]).keep(torch.tensor([False]))
    objective = get(name)
    made, _ = assign(objective, empty, recompute=recompute)
    assert advantages(made).shape == (0, 2)
    assert objective.next_states(made.view) == objective.initial_states()
    if recompute:
        assert math.isnan(made.metrics["sampler_gap"])
