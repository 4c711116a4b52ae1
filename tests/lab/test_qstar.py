"""Exact optima: against every deterministic policy, and against the closed form over whole responses."""

from __future__ import annotations

import itertools

import pytest
import torch

from rlzoo.lab import exact, qstar
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import make_world

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def test_v_star_is_the_best_of_all_deterministic_policies() -> None:
    """Responses of at most 2 of 3 tokens: 3 states, 3^3 deterministic policies, each valued by its one response."""
    space = enumerate_responses(3, 2)
    reward_SV = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = qstar.optimal(space, reward_SV)
    gains = []
    for choice in itertools.product(range(3), repeat=3):
        state, gain = 0, 0.0
        while state >= 0:
            gain += reward_SV[state, choice[state]].item()
            state = space.next_SV[state, choice[state]].item()
        gains.append(gain)
    assert found.v_S[0].item() == pytest.approx(max(gains), abs=1e-12)
    assert found.a_SV.amax(dim=1).tolist() == [0, 0, 0]  # the best token's advantage against the best


def test_q_star_by_hand() -> None:
    """One right answer, `1 end`, worth 1; any other finished or cut response 0.25."""
    space = enumerate_responses(3, 2)
    reward_R = torch.full((len(space.mask_RT),), 0.25, dtype=torch.float64)
    prefix = space.prefix_ST.tolist().index([1, -1])
    reward_R[space.response_SV[prefix, 2]] = 1
    found = qstar.optimal(space, exact.token_reward(space, reward_R))
    assert found.q_SV[0].tolist() == [0.25, 1, 0.25]
    assert found.q_SV[prefix].tolist() == [0.25, 0.25, 1]


def test_soft_values_between_the_mean_and_the_maximum() -> None:
    """beta to 0: V*; beta to infinity: V of the reference; the optimum of responses is ref(y) exp(R(y) / beta)."""
    world = make_world()
    space, ref_SV = world.space, world.logits_SV
    reward_SV = exact.token_reward(space, world.reward_R)
    hard, mean = qstar.optimal(space, reward_SV).v_S, exact.values(ref_SV, space, reward_SV).v_S
    torch.testing.assert_close(qstar.soft_optimal(ref_SV, space, reward_SV, 1e-4).v_S, hard, rtol=0, atol=2e-3)
    torch.testing.assert_close(qstar.soft_optimal(ref_SV, space, reward_SV, 1e4).v_S, mean, rtol=0, atol=1e-4)
    soft = qstar.soft_optimal(ref_SV, space, reward_SV, 0.5)
    closed_R = exact.probability(ref_SV, space) * (world.reward_R / 0.5).exp()
    assert soft.v_S[0].item() == pytest.approx(0.5 * closed_R.sum().log().item(), abs=1e-12)
    logp_SV = qstar.soft_policy(ref_SV, soft.q_SV, 0.5)
    torch.testing.assert_close(exact.probability(logp_SV, space), closed_R / closed_R.sum(), **CLOSE)


def test_greedy_shares_ties() -> None:
    assert qstar.greedy(torch.tensor([[1.0, 2.0, 2.0], [0, 0, 0]])).tolist() == [
        [0, 0.5, 0.5],
        pytest.approx([1 / 3] * 3),
    ]


def test_visits_are_the_probabilities_of_prefixes() -> None:
    world = make_world(longest=3)
    space = world.space
    pi_SV = world.logits_SV.softmax(dim=1)
    p_R = exact.probability(world.logits_SV, space)
    visits_S = exact.visits(pi_SV, space)
    for s in range(len(visits_S)):
        through_R = ((space.state_RT == s) & space.mask_RT).any(dim=1)
        assert visits_S[s].item() == pytest.approx(p_R[through_R].sum().item(), abs=1e-14)
    assert visits_S.sum().item() == pytest.approx((p_R * space.length_R).sum().item(), abs=1e-12)
    torch.testing.assert_close(qstar.probability(pi_SV, space), p_R, **CLOSE)
    two = torch.stack([pi_SV, pi_SV.flip(1)])
    assert torch.equal(exact.visits(two, space)[0], visits_S)
