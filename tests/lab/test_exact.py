"""Spaces, policies and exact quantities."""

from __future__ import annotations

import pytest
import torch

from rlzoo.errors import UserError
from rlzoo.lab import exact
from rlzoo.lab.policy import make_policy
from rlzoo.lab.space import Space, enumerate_responses
from rlzoo.lab.world import make_world

KINDS = ["tabular", "transformer"]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def _texts(space: Space) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(space.token_RT, space.length_R, strict=True)]


@pytest.mark.parametrize(("vocabulary", "longest"), [(2, 1), (2, 5), (3, 4), (4, 3)])
def test_a_space_holds_every_response_once(vocabulary: int, longest: int) -> None:
    space = enumerate_responses(vocabulary, longest)
    end = vocabulary - 1
    states = sum(end**k for k in range(longest))
    assert len(space.prefix_ST) == states
    assert len(space.token_RT) == states + end**longest
    texts = {tuple(text) for text in _texts(space)}
    assert len(texts) == len(space.token_RT)
    assert all(end not in text[:-1] for text in texts)
    assert space.finished_R.tolist() == [text[-1] == end for text in _texts(space)]
    # every choice in every state either goes on or ends one response
    assert ((space.next_SV >= 0) ^ (space.response_SV >= 0)).all()
    assert sorted(space.response_SV[space.response_SV >= 0].tolist()) == list(range(len(texts)))


def test_a_space_refuses_what_cannot_be_enumerated() -> None:
    with pytest.raises(UserError, match="fewer tokens or a smaller length"):
        enumerate_responses(10, 6)
    with pytest.raises(UserError, match="at least 2 tokens"):
        enumerate_responses(1, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("success", [0.001, 0.3, 0.95])
def test_a_world_begins_with_the_success_rate_asked_for(kind: str, success: float) -> None:
    world = make_world(success=success, kind=kind)
    assert world.success == pytest.approx(success, rel=1e-9)
    assert exact.probability(world.logits_SV, world.space).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("success", [0.0, 1.0, 1.5])
def test_a_world_refuses_an_impossible_success_rate(success: float) -> None:
    with pytest.raises(UserError, match="above 0 and below 1"):
        make_world(success=success)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_bellman_relations(kind: str, gamma: float) -> None:
    """V = E[gain | s] over the responses through s, Q = r + gamma V', sum_a pi A = 0, V = sum_a pi Q."""
    world = make_world(kind=kind, seed=2)
    space = world.space
    reward_SV = exact.token_reward(space, world.reward_R)
    # a reward within the response as well
    reward_SV = reward_SV + torch.randn(reward_SV.shape, generator=torch.Generator().manual_seed(0)).double()
    found = exact.values(world.logits_SV, space, reward_SV, gamma)
    pi_SV = world.logits_SV.softmax(dim=1)
    next_v_SV = torch.where(space.next_SV >= 0, found.v_S[space.next_SV.clamp(min=0)], 0)
    torch.testing.assert_close(found.q_SV, reward_SV + gamma * next_v_SV, **CLOSE)
    torch.testing.assert_close(found.v_S, (pi_SV * found.q_SV).sum(dim=1), **CLOSE)
    torch.testing.assert_close((pi_SV * found.a_SV).sum(dim=1), torch.zeros(len(pi_SV)).double(), **CLOSE)
    probability_R = exact.probability(world.logits_SV, space)
    reward_RT = torch.where(space.mask_RT, reward_SV[space.state_RT, space.token_RT], 0)
    for s in range(len(pi_SV)):
        depth = int(space.depth_S[s])
        through_R = (space.state_RT[:, depth] == s) & space.mask_RT[:, depth]
        gain_R = (reward_RT[:, depth:] * gamma ** torch.arange(space.longest - depth).double()).sum(dim=1)
        mean = (probability_R * gain_R)[through_R].sum() / probability_R[through_R].sum()
        assert found.v_S[s].item() == pytest.approx(mean.item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_policy_gradient_theorem(kind: str) -> None:
    """Autograd through J = sum_y pi(y) sum_s,a d(s) pi(a|s) A(s,a) grad log pi(a|s), in the parameters too."""
    world = make_world(kind=kind, seed=1)
    space = world.space
    found = exact.values(world.logits_SV, space, exact.token_reward(space, world.reward_R))
    probability_R = exact.probability(world.logits_SV, space)
    visits_S = torch.zeros(len(found.v_S)).double()
    for t in range(space.longest):
        mask_R = space.mask_RT[:, t]
        visits_S.index_add_(0, space.state_RT[mask_R, t], probability_R[mask_R])
    by_theorem_SV = visits_S[:, None] * world.logits_SV.softmax(dim=1) * found.a_SV
    by_autograd_SV = exact.logits_gradient(world.logits_SV, space, world.reward_R)
    torch.testing.assert_close(by_theorem_SV, by_autograd_SV, **CLOSE)
    leaf_M = world.theta_M.clone().requires_grad_()
    exact.expected(world.policy.logits_SV(leaf_M), space, world.reward_R).backward()
    jacobian = world.policy.jacobian(world.theta_M)
    through = by_autograd_SV.flatten() if jacobian is None else by_autograd_SV.flatten() @ jacobian
    torch.testing.assert_close(through, leaf_M.grad, **CLOSE)


def test_the_transformer_shares_what_the_table_does_not() -> None:
    """One parameter moves the logits of many states."""
    space = enumerate_responses(3, 4)
    policy = make_policy("transformer", space)
    jacobian = policy.jacobian(policy.initial(0))
    assert jacobian is not None
    states_M = (jacobian != 0).view(len(space.prefix_ST), 3, -1).any(dim=1).sum(dim=0)
    assert (states_M > 1).double().mean() > 0.8
    assert (states_M == len(space.prefix_ST)).double().mean() > 0.5
    assert policy.logits_SV(policy.initial(0)).dtype == torch.float64


def test_kl_divergence_is_that_of_whole_responses() -> None:
    world, other = make_world(success=0.3), make_world(success=0.6, seed=3)
    p_R, q_R = (exact.probability(w.logits_SV, w.space) for w in (world, other))
    kl = exact.kl_divergence(world.logits_SV, other.logits_SV, world.space).item()
    assert kl == pytest.approx((p_R * (p_R / q_R).log()).sum().item(), rel=1e-12)
    assert exact.kl_divergence(world.logits_SV, world.logits_SV, world.space).item() == 0
