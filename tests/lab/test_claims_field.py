"""Computations of the newer claims against enumeration, differences and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

import objectives
from advantages import Group
from rlzoo.lab import exact
from rlzoo.lab.claims import aims, clipping, entropy, high_entropy, mismatch, off_policy
from rlzoo.lab.claims.groups import with_advantage
from rlzoo.lab.drift import climbed, drifted
from rlzoo.lab.moments import moments
from rlzoo.lab.reuse import Reuse, gradient, simulate
from rlzoo.lab.single import single
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world


def test_drift_goes_as_far_as_it_says() -> None:
    at = first_update(make_world(longest=3))
    for moved in (drifted(at, 0.2, 3), climbed(at, 0.2)):
        found = exact.kl_divergence(moved.old_logits_SV, moved.logits_SV, moved.space).item()
        assert found == pytest.approx(0.2, abs=1e-6)
    assert climbed(at, 0.1).old_logits_SV is at.old_logits_SV
    step_SV = climbed(at, 1e-4).logits_SV - at.logits_SV
    assert torch.cosine_similarity(step_SV.flatten(), at.true_gradient_SV.flatten(), 0).item() == pytest.approx(1)


def test_weights_of_a_response_by_hand() -> None:
    """A response of tokens with ratios 2 and 1/8: whole 1/4, GSPO's (1/4)^(1/2) = 1/2 at both, token 2 and 1/8."""
    at = first_update(make_world(longest=2))
    two = int((at.space.length_R == 2).nonzero()[0])
    s, a = at.space.state_RT[two], at.space.token_RT[two]
    old_SV = torch.full((len(at.space.prefix_ST), 3), 1.0).double().log()
    pi_SV = torch.full((len(at.space.prefix_ST), 3), 1.0).double()
    old = torch.tensor([[0.4, 0.3, 0.3], [0.8, 0.1, 0.1]], dtype=torch.float64)
    pi = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.45, 0.45]], dtype=torch.float64)
    for row in range(2):  # the chosen token first
        order = [int(a[row]), *[v for v in range(3) if v != int(a[row])]]
        old_SV[s[row], order], pi_SV[s[row], order] = old[row].log(), pi[row]
    there = replace(at, old_logits_SV=old_SV, logits_SV=pi_SV.log())
    found = {name: log_RT[two].exp().tolist() for name, log_RT in off_policy.log_ratios(there).items()}
    assert found["token"] == pytest.approx([2, 0.125])
    assert found["response"] == pytest.approx([0.25, 0.25]) and found["normalized"] == pytest.approx([0.5, 0.5])
    assert found["none"] == [1, 1]


def test_a_coin_flips_gradient_by_hand() -> None:
    """Slopes at r of the mean over A = +1 and -1: 0 inside, (0 - r)/2 above 1.2, (r - 0)/2 below 0.8."""
    at = drifted(first_update(make_world(longest=3)), 0.5, 1)
    ratio_RT = off_policy.log_ratios(at)["token"].exp()
    c_RT = torch.where(ratio_RT > 1.2, -ratio_RT / 2, torch.where(ratio_RT < 0.8, ratio_RT / 2, 0.0))
    expected = single(at, c_RT, at.true_gradient_SV).mean_SV
    torch.testing.assert_close(off_policy.coin_flip_gradient(at, clip=True), expected, rtol=1e-12, atol=1e-15)
    assert expected.norm() > 1e-3


def test_the_off_policy_flow_ends_where_its_gradient_is_zero() -> None:
    """With all a > 0 the rest is at pi = a / sum(a), a = mu (r - V); V = mean - 0.7 is below every reward."""
    mu_KA, end_KA = off_policy.off_policy_flow(-0.7)
    reward_A = torch.tensor(off_policy.REWARDS, dtype=torch.float64)
    a_KA = mu_KA * (reward_A - (mu_KA @ reward_A)[:, None] + 0.7)
    torch.testing.assert_close(end_KA, a_KA / a_KA.sum(dim=1, keepdim=True), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_maxrl_weight_over_every_group(size: int) -> None:
    """w = E[A | right] - E[A | wrong] for right/wrong answers, enumerated over all groups with G (r - mean) / mean."""
    p, told = 0.3, [0.0, 0.0]
    for group in itertools.product((0, 1), repeat=size):
        chance = math.prod(p if r else 1 - p for r in group)
        mean = sum(group) / size
        told[group[0]] += chance / (p if group[0] else 1 - p) * ((group[0] - mean) / mean if mean else 0)
    assert aims.maxrl_weight(size, p) == pytest.approx(told[1] - told[0], rel=1e-12)
    assert aims.maxrl_weight(size, p) == pytest.approx((1 - 0.7 ** (size - 1)) / 0.3, rel=1e-12)


def test_the_projects_maxrl_has_the_cards_weight() -> None:
    at = first_update(make_world(success=0.25, longest=2))
    found = moments(with_advantage(objectives.get("maxrl").advantage), at, 8)
    expected = aims.maxrl_weight(8, 0.25) * at.true_gradient_SV  # 3.466 grad p
    torch.testing.assert_close(found.mean_SV, expected, rtol=1e-5, atol=1e-9)


def test_groups_of_two_with_a_std_are_pairs() -> None:
    """Population std of a mixed pair is half the difference: advantages +1 and -1, as the card takes them."""
    reward = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    mask, group = torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    assert Group(ddof=0, eps=0)(reward, mask, group).advantage_NT[:, 0].tolist() == [1, -1]
    assert aims.pair_gradients(0, 0.0) == pytest.approx(1, abs=1e-12)


def test_two_prompts_that_share_a_policy() -> None:
    """Climbing pass@1 ends on the answer asked for more often: 0.6 and 0.6; pass@8 on both: 0.6 p + 0.4 q."""
    one, eight = aims.shared_prompts(1)
    assert (one[0], eight[0]) == pytest.approx((0.6 * 0.4 + 0.4 * 0.3, 0.6 * (1 - 0.6**8) + 0.4 * (1 - 0.7**8)))
    assert one[1] == pytest.approx(0.6, abs=2e-3) and eight[1] == pytest.approx(0.6, abs=5e-3)


def test_entropy_of_a_coin() -> None:
    """Two tokens, pi = (3/4, 1/4), A = (1, -1): A - mean = (1/2, -3/2); pi A = (3/8, -3/8).

    Cov(log pi, x) = (3/4)(1/4)(log 3)(x_1 - x_2): log 3 (3/16) (3/4) = 0.1545 for pi A, and (3/16) 2 log 3 for A.
    """
    logits = torch.tensor([math.log(3), 0.0], dtype=torch.float64)
    advantage = torch.tensor([1.0, -1.0], dtype=torch.float64)
    change, with_pi, without = entropy.entropy_change(logits, advantage, natural=False)
    assert with_pi == pytest.approx(-math.log(3) * 9 / 64) and without == pytest.approx(-math.log(3) * 3 / 8)
    assert change == pytest.approx(with_pi, rel=1e-6)
    assert entropy.entropy_change(logits, advantage, natural=True)[0] == pytest.approx(without, rel=1e-6)


def test_a_line_is_fitted_exactly() -> None:
    h = torch.linspace(0.1, 2, 9, dtype=torch.float64)
    a, b, explained = entropy.fitted(-0.3 * h.exp() + 2, h)
    assert (a, b, explained) == pytest.approx((0.3, 2, 1))


def test_states_of_high_entropy_hold_a_fifth_of_the_tokens() -> None:
    world = make_world(seed=2)
    visits_S = exact.visits(world.logits_SV.softmax(dim=1), world.space)
    mask_S = high_entropy.chosen_states(world, "top", 2)
    pi_SV = world.logits_SV.softmax(dim=1)
    entropy_S = -(pi_SV * pi_SV.log()).sum(dim=1)
    assert entropy_S[mask_S > 0].min() > entropy_S[mask_S == 0].max()
    lowest = entropy_S.masked_fill(mask_S == 0, torch.inf).argmin()
    held = (visits_S * mask_S).sum() / visits_S.sum()
    assert held - visits_S[lowest] / visits_S.sum() < 0.2 <= held
    assert high_entropy.chosen_states(world, "all", 0).all()


def test_reuse_counts_what_it_samples_and_follows_the_loss() -> None:
    assert Reuse(fresh=True).sampled == 32 and Reuse(fresh=False).sampled == 8
    assert Reuse(fresh=False, rollouts=4).sampled == 32
    world = make_world(longest=2)
    response_XN = torch.tensor([[0, 1, 2], [3, 3, 4]])
    logits_XSV = world.logits_SV.expand(2, -1, -1)
    found = gradient(world, logits_XSV, logits_XSV, response_XN)
    for x in range(2):  # on-policy: mean_i A_i grad log pi(y_i), leave-one-out
        reward = world.reward_R[response_XN[x]]
        leaf = world.logits_SV.clone().requires_grad_()
        logp_R = world.space.logp_RT(leaf.log_softmax(dim=1)).sum(dim=1)
        told = torch.stack([r - (reward.sum() - r) / 2 for r in reward])
        (expected,) = torch.autograd.grad((told * logp_R[response_XN[x]]).mean(), leaf)
        torch.testing.assert_close(found[x], expected, rtol=1e-12, atol=1e-15)
    still = simulate(Reuse(fresh=True, step=0.0, repeats=3), world)
    assert still.mean == pytest.approx(0.25, abs=1e-9)


def test_a_mask_and_a_cap_by_hand() -> None:
    """Where no weight leaves [0.5, 5] both are the plain token weight."""
    masked, cut = mismatch.masked_or_cut(0.01, 0)
    plain = mismatch.corrected("gaussian", "token", 0.01, 0)
    for found in (masked, cut):
        torch.testing.assert_close(found.mean_SV, plain.mean_SV)
        assert found.variance == pytest.approx(plain.variance)


@pytest.mark.parametrize(("old", "clip"), [(0.01, 0.002), (0.5, 0.1), (0.9, 0.1)])
def test_how_far_a_good_token_moves(old: float, clip: float) -> None:
    """0.2 x 0.01, 0.2 x 0.5; 0.9 may grow to 1, as 1.08 is out of reach. The mask stops all at a change of 0.1."""
    assert clipping.moved_until_dead(old) == pytest.approx((clip, 0.1), abs=1e-5)


def test_a_bypassed_ratio_by_hand() -> None:
    """Without errors nothing is stopped and both point along the true gradient; with errors stopped are A r outside."""
    assert mismatch.dead_at_first(0.0, 0) == pytest.approx((0, 1, 1), abs=1e-9)
    at = mismatch._situation()
    q_SV = mismatch.sampler_logits("gaussian", at.logits_SV, 0.5, 0)
    law_R, p = exact.probability(q_SV, at.space), (at.old_probability_R * at.reward_R).sum().item()
    dead = tokens = 0.0
    for r, t in at.space.mask_RT.nonzero().tolist():
        ratio = mismatch.log_weights(q_SV)[r, t].exp().item()
        above = at.reward_R[r].item() > p
        tokens += law_R[r].item()
        dead += law_R[r].item() * (ratio > 1.2 if above else ratio < 0.8)
    assert mismatch.dead_at_first(0.5, 0)[0] == pytest.approx(dead / tokens)
