"""Where algorithms coincide, and where they must not.

Two rows that are one algorithm under some condition must give the same gradient under it, and different ones without.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

import objectives
from advantages import GAE, Group, RewardToGo, at_last_token
from objectives import Objective, PolicyOutput, TokenBatch, get
from objectives.conformance import world as zoo

CLOSE = {"rtol": 1e-12, "atol": 1e-15}


def gradient(objective: Objective, w: zoo.World) -> Tensor:
    return zoo.loss_and_gradients(objective, *zoo.step(objective, w))[1]["logp_BT"]


GROUP_VARIANTS = [
    "grpo[kl=none]",
    "grpo[kl=none,ratio=none,surrogate=linear]",
    "grpo[kl=none,surrogate=linear]",
    "grpo[kl=none,surrogate.dual=3]",
    "grpo[kl=none,surrogate.high=0.28]",
    "grpo[kl=none,surrogate=clipped_weight]",
    "grpo[kl=none,ratio=sequence]",
    "grpo[kl=none,ratio=sequence,surrogate=linear]",
    "grpo[kl=none,ratio=sequence,surrogate=clipped_weight]",
    "gspo",
    "gspo[surrogate.dual=3]",
]


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(GROUP_VARIANTS, 2)))
def test_on_policy_the_ratio_and_the_clip_are_inert(one: str, two: str) -> None:
    """At one update per rollout PPO's clip, dual clip, clip-higher, CISPO and GSPO are one algorithm."""
    on_policy = zoo.world().on_policy()
    torch.testing.assert_close(gradient(get(one), on_policy), gradient(get(two), on_policy), **CLOSE)


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(GROUP_VARIANTS, 2)))
def test_off_policy_they_are_not(one: str, two: str) -> None:
    """No two of the variants agree on a batch with ratios beyond 5 (the cap), 3 (the dual clip), 1.2 and below 0.8.

    0.205 lies between log 1.2 and log 1.28; the mean of the first five, 0.181, between log(1 + 4e-4) and log 1.2.
    """
    w = zoo.world()
    log_ratio_T = torch.tensor([2.0, -2.0, 1.0, -0.3, 0.205, -0.205, 1.3], dtype=torch.float64)
    far = dataclasses.replace(w, logp_NT=torch.where(w.mask_NT, w.old_logp_NT + log_ratio_T, 0))
    assert (gradient(get(one), far) - gradient(get(two), far)).abs().max() > 1e-4


def test_clip_higher_is_bitwise_inert_on_policy() -> None:
    on_policy = zoo.world().on_policy()
    assert torch.equal(gradient(get("dapo"), on_policy), gradient(get("dapo[surrogate.high=0.2]"), on_policy))


@pytest.mark.parametrize("name", objectives.names())
def test_at_ratio_one_is_the_first_update(name: str) -> None:
    """The row `at_ratio_one` has the gradients of the objective itself before the first update, the critic's too."""
    objective, on_policy = get(name), zoo.world().on_policy()
    _, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, on_policy))
    _, reduced = zoo.loss_and_gradients(objective.at_ratio_one(), *zoo.step(objective, on_policy))
    torch.testing.assert_close(gradients, reduced, **CLOSE)


def test_at_ratio_one_knows_which_rows_coincide() -> None:
    assert len({get(name).at_ratio_one() for name in ("gspo", "grpo[kl=none]", "gspo[surrogate=clipped_weight]")}) == 1
    assert len({get(name).at_ratio_one() for name in ("reinforce", "ppo", "grpo", "dapo", "gspo")}) == 5
    assert get("ppo").at_ratio_one() == get("ppo[value=plain]").at_ratio_one()
    assert get("ppo").at_ratio_one() != get("ppo[value=plain,value.coef=1]").at_ratio_one()
    assert get("gspo[surrogate=clipped_weight,surrogate.cap=0.5]").at_ratio_one() != get("gspo").at_ratio_one()


def test_gspo_token_is_gspo_where_the_advantage_is_constant_in_a_response() -> None:
    """Then the plain form, autograd through s_i = exp(mean log-ratio), has its gradient; with GAE's it has not."""
    w = zoo.world()
    constant = get("gspo_token[advantage=group,value=none]")
    assert constant == get("gspo").but(name=constant.name)
    objective = get("gspo_token[surrogate=linear]")
    out, batch = zoo.step(objective, w)
    logp_NT = zoo.leaf(w.logp_NT)
    length_N = w.mask_NT.sum(dim=1)
    s_N = (torch.where(w.mask_NT, logp_NT - w.old_logp_NT, 0).sum(dim=1) / length_N).exp()
    mean_N = torch.where(w.mask_NT, batch.advantage_BT, 0).sum(dim=1) / length_N
    (plain_NT,) = torch.autograd.grad(-(s_N * mean_N).mean(), logp_NT)
    (token_NT,) = torch.autograd.grad(objective.terms(out, batch)["surrogate"], out.logp_BT)
    torch.testing.assert_close(token_NT.sum(dim=1), plain_NT.sum(dim=1), **CLOSE)  # the same pull on a response
    assert (token_NT - plain_NT).abs().max() > 1e-3  # and another on its tokens


def test_luspo_is_gspo_times_the_length() -> None:
    w = zoo.world()
    gspo, luspo = gradient(get("gspo"), w), gradient(get("luspo[surrogate.low=3e-4,surrogate.high=4e-4]"), w)
    torch.testing.assert_close(luspo, gspo * w.mask_NT.sum(dim=1, keepdim=True), **CLOSE)


def test_gmpo_without_its_clip_is_gspo_without_its_own() -> None:
    """exp(mean log r) is the geometric mean: the same ratio, unclipped."""
    w = zoo.world()
    wide = gradient(get("gmpo[surrogate.low=100,surrogate.high=100]"), w)
    torch.testing.assert_close(wide, gradient(get("gspo[surrogate=linear]"), w), **CLOSE)
    assert not torch.allclose(wide, gradient(get("gmpo"), w))


def test_gmpo_of_one_token_is_a_token_clip() -> None:
    """exp(.4) - 1 above, 1 - exp(-.4) below."""
    w = zoo.world()
    moved_NT = w.old_logp_NT + torch.linspace(-0.6, 0.6, 16, dtype=torch.float64).roll(5)[:, None]
    first = dataclasses.replace(w, mask_NT=w.mask_NT & (torch.arange(7) == 0), logp_NT=moved_NT)
    high, low = math.exp(0.4) - 1, 1 - math.exp(-0.4)
    clip = get("grpo[kl=none]").but(surrogate={"kind": "clip", "low": low, "high": high})
    torch.testing.assert_close(gradient(get("gmpo"), first), gradient(clip, first), **CLOSE)
    assert not torch.allclose(gradient(get("gmpo"), first), gradient(get("grpo[kl=none]"), first))


def test_presets_that_one_update_per_rollout_makes_one() -> None:
    """Only the aggregate is left of GMPO, SAPO and GSPO, of CISPO and KL-Cov; LUSPO's is the sum."""
    assert get("gmpo").at_ratio_one() == get("sapo").at_ratio_one() == get("gspo").at_ratio_one()
    token_mean = get("grpo[kl=none,aggregate=token_mean]").at_ratio_one()
    assert get("cispo[select=all,shape=none]").at_ratio_one() == get("kl_cov").at_ratio_one() == token_mean
    assert get("luspo").at_ratio_one() == get("gspo[aggregate=sequence_sum]").at_ratio_one()
    on_policy = zoo.world().on_policy()
    for one, two in (("gmpo", "gspo"), ("sapo", "gspo"), ("cispo[select=all,shape=none]", "kl_cov")):
        torch.testing.assert_close(gradient(get(one), on_policy), gradient(get(two), on_policy), **CLOSE)


def test_cispo_at_ratio_one_is_reinforce_with_the_groups_advantage() -> None:
    """-sum A log pi / N, written out."""
    on_policy = zoo.world().on_policy()
    _, batch = zoo.step(get("cispo[select=all,shape=none]"), on_policy)
    score = -batch.advantage_BT / on_policy.mask_NT.sum()
    torch.testing.assert_close(
        gradient(get("cispo[select=all,shape=none]"), on_policy), torch.where(on_policy.mask_NT, score, 0), **CLOSE
    )


def test_gspo_is_grpo_without_kl_before_the_first_update() -> None:
    on_policy = zoo.world().on_policy()
    torch.testing.assert_close(gradient(get("gspo"), on_policy), gradient(get("grpo[kl=none]"), on_policy), **CLOSE)
    assert not torch.allclose(gradient(get("gspo"), zoo.world()), gradient(get("grpo[kl=none]"), zoo.world()))


def test_dapo_without_its_four_changes_is_grpo_without_kl() -> None:
    w = zoo.world()
    plain = get("dapo[select=all,shape=none,surrogate.high=0.2,aggregate=sequence_mean]")
    grpo = get("grpo[kl=none]")
    assert plain == grpo.but(name=plain.name)
    for state in (w, w.on_policy()):
        assert torch.equal(gradient(plain, state), gradient(grpo, state))


def test_ppo_without_critic_kl_and_whitening_is_reinforce() -> None:
    """lambda 1 and V = 0: GAE is the reward-to-go. On-policy and with REINFORCE's aggregate the losses are equal."""
    on_policy = zoo.world().on_policy()
    blind = dataclasses.replace(on_policy, old_value_NT=torch.zeros_like(on_policy.old_value_NT))
    ppo = get("ppo[shape=none,advantage.lam=1,advantage.whiten=false,aggregate=sequence_sum]")
    reinforce = get("reinforce[advantage.baseline=none]")
    out, batch = zoo.step(ppo, blind)
    torch.testing.assert_close(gradient(ppo, blind), gradient(reinforce, blind), **CLOSE)
    torch.testing.assert_close(ppo.terms(out, batch)["surrogate"], reinforce.loss(*zoo.step(reinforce, blind)), **CLOSE)
    assert not torch.allclose(gradient(get("ppo"), blind), gradient(reinforce, blind))


def test_grpos_value_is_zero_on_policy_and_its_gradient_is_not() -> None:
    """Advantages of a group sum to 0, so does the loss; ascending it still makes the right responses likelier."""
    on_policy = zoo.world().on_policy()
    grpo = get("grpo[kl=none]")
    loss, gradients = zoo.loss_and_gradients(grpo, *zoo.step(grpo, on_policy))
    assert loss.item() == pytest.approx(0, abs=1e-15)
    right_N, mixed_N = on_policy.reward_N == 1, (on_policy.group_N == 0) | (on_policy.group_N == 3)
    descent_N = -gradients["logp_BT"].sum(dim=1)
    assert (descent_N[right_N & mixed_N] > 0.01).all()
    assert (descent_N[~right_N & mixed_N] < -0.01).all()
    assert (descent_N[~mixed_N] == 0).all()


def test_one_step_up_a_zero_objective_raises_the_right_choice() -> None:
    """Four choices, twenty samples, one right choice: the loss is 0, the probability of the right choice rises."""
    logits_V = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    choice_N = torch.arange(4).repeat(5)
    logp_N1 = logits_V.log_softmax(0)[choice_N][:, None]
    mask_N1 = torch.ones(20, 1, dtype=torch.bool)
    grpo = get("grpo[kl=none]")
    credit = grpo.advantage((choice_N == 2).double()[:, None], mask_N1, torch.zeros(20, dtype=torch.long))
    batch = TokenBatch(mask_N1, grpo.aggregate(mask_N1, torch.float64), credit.advantage_NT, logp_N1.detach())
    loss = grpo.loss(PolicyOutput(logp_N1), batch)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15)
    after_V = (logits_V.detach() - 0.1 * logits_V.grad).softmax(0)
    assert after_V[2] > 0.25
    assert (after_V[[0, 1, 3]] < 0.25).all()


def test_aggregates_coincide_where_they_should() -> None:
    """Equal lengths n: token_mean = sequence_mean = constant(n). Always: sequence_sum = n * constant(n)."""
    w = zoo.world()
    equal = dataclasses.replace(w.rows(torch.tensor([1, 7, 9, 15])), group_N=torch.zeros(4, dtype=torch.long))
    assert equal.mask_NT.all()
    base = get("grpo[kl=none]")
    seven = base.but(**{"aggregate": "constant", "aggregate.budget": 7})
    reference = gradient(base, equal)
    assert reference.abs().max() > 0.01
    torch.testing.assert_close(gradient(base.but(aggregate="token_mean"), equal), reference, **CLOSE)
    torch.testing.assert_close(gradient(seven, equal), reference, **CLOSE)
    torch.testing.assert_close(gradient(base.but(aggregate="sequence_sum"), w), 7 * gradient(seven, w), **CLOSE)
    assert not torch.allclose(gradient(base.but(aggregate="token_mean"), w), gradient(base, w))


def test_token_mean_is_the_length_weighted_mean_of_sequence_means() -> None:
    """1/sum n_i = (n_i / sum n) (1 / n_i): DAPO's share of a token, from GRPO's."""
    mask_BT = zoo.world().mask_NT
    length_B1 = mask_BT.sum(dim=1, keepdim=True).double()
    token = get("dapo").aggregate(mask_BT, torch.float64)
    sequence = get("grpo").aggregate(mask_BT, torch.float64)
    torch.testing.assert_close(token, sequence * length_B1 / length_B1.mean(), **CLOSE)


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_1(samples: int) -> None:
    """r_i - (S - r_i) / (G - 1) = G / (G - 1) (r_i - S / G)."""
    reward_N = torch.randn(samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask_N1, group_N = torch.ones(samples, 1, dtype=torch.bool), torch.zeros(samples, dtype=torch.long)
    rloo = RewardToGo(baseline="leave_one_out")(reward_N[:, None], mask_N1, group_N).advantage_NT
    centred = Group(scale="none")(reward_N[:, None], mask_N1, group_N).advantage_NT
    torch.testing.assert_close(rloo, centred * samples / (samples - 1), **CLOSE)


@pytest.mark.parametrize(("ddof", "size"), [(0, 1.0), (1, 0.5**0.5)])
def test_a_group_of_two_knows_only_which_is_better(ddof: int, size: float) -> None:
    """(a - (a+b)/2) / std is +-1 with n, +-1/sqrt(2) with n - 1, whatever a and b."""
    for better, worse in [(1.0, 0.0), (0.3, 0.1), (7.0, -2.0)]:
        reward_N1 = torch.tensor([[better], [worse]], dtype=torch.float64)
        credit = Group(ddof=ddof, eps=0)(reward_N1, torch.ones(2, 1, dtype=torch.bool), torch.zeros(2).long())
        assert credit.advantage_NT.flatten().tolist() == pytest.approx([size, -size], rel=1e-14)


@pytest.mark.parametrize(
    ("advantage", "invariant_to"),
    [(Group(eps=0), {"scale", "offset"}), (Group(scale="none"), {"offset"}), (RewardToGo(baseline="none"), set())],
    ids=["group(std)", "group(none)", "none"],
)
def test_which_advantages_ignore_the_rewards_scale_and_offset(advantage: Group | RewardToGo, invariant_to: set) -> None:
    w = zoo.world()

    def of(reward_N: Tensor) -> Tensor:
        return advantage(at_last_token(reward_N, w.mask_NT), w.mask_NT, w.group_N).advantage_NT

    for change, reward_N in {"scale": 3 * w.reward_N, "offset": w.reward_N - 2}.items():
        assert torch.allclose(of(reward_N), of(w.reward_N), rtol=1e-12) == (change in invariant_to), change


# Expected gradients, exactly: every group of G responses of a tabular policy, each with its probability.


def expected_gradient(t: zoo.Tabular, advantage: Group | RewardToGo, samples: int) -> Tensor:
    """E[1/G sum_i sum_t A_it grad log pi_it] over all groups of G responses, one prompt per rollout."""
    logp_RT = t.logp_RT
    total = torch.zeros_like(t.logits_SV)
    for group in itertools.product(range(len(t.reward_R)), repeat=samples):
        index = torch.tensor(group)
        reward_NT = at_last_token(t.reward_R[index], t.mask_RT[index])
        credit = advantage(reward_NT, t.mask_RT[index], torch.zeros(samples, dtype=torch.long))
        weighted = (t.probability_R[index].prod().detach() * credit.advantage_NT * logp_RT[index]).sum() / samples
        (gradient,) = torch.autograd.grad(weighted, t.logits_SV, retain_graph=True)
        total += gradient
    return total


@pytest.mark.parametrize(
    ("advantage", "factor"),
    [
        (RewardToGo(baseline="none"), 1),
        (RewardToGo(baseline="leave_one_out"), 1),  # the baseline does not know the response
        (RewardToGo(baseline="batch_mean"), 1 / 2),  # (N-1)/N: half the baseline is the response itself
        (Group(scale="none"), 1 / 2),  # (G-1)/G, for the same reason
    ],
    ids=str,
)
def test_expected_gradient_of_a_baseline(advantage: Group | RewardToGo, factor: float) -> None:
    t = zoo.tabular(longest=2)
    torch.testing.assert_close(
        expected_gradient(t, advantage, samples=2), factor * t.true_gradient(), rtol=1e-10, atol=1e-13
    )


@pytest.mark.parametrize("ddof", [0, 1])
def test_group_std_of_two_binary_rewards_is_unbiased_up_to_a_constant(ddof: int) -> None:
    """G = 2: w = 1 at every difficulty with the population std, sqrt(1/2) with n - 1: no difficulty bias at all."""
    t = zoo.tabular(seed=3, longest=2, binary=True)
    assert 0 < t.reward_R.mean() < 1
    expected = expected_gradient(t, Group(ddof=ddof, eps=0), samples=2)
    torch.testing.assert_close(expected, (1 - ddof / 2) ** 0.5 * t.true_gradient(), rtol=1e-10, atol=1e-13)


def exact_values(t: zoo.Tabular) -> Tensor:
    """V(s_t) before each token: the mean return of all responses that pass through the prefix."""
    probability_R = t.probability_R.detach()
    value_S = torch.zeros(len(t.logits_SV), dtype=torch.float64)
    for s in range(len(t.logits_SV)):
        through_R = ((t.state_RT == s) & t.mask_RT).any(dim=1)
        value_S[s] = (probability_R * t.reward_R)[through_R].sum() / probability_R[through_R].sum()
    return torch.where(t.mask_RT, value_S[t.state_RT], 0)


def gae_gradient(t: zoo.Tabular, gae: GAE, value_RT: Tensor) -> Tensor:
    credit = gae(at_last_token(t.reward_R, t.mask_RT), t.mask_RT, torch.arange(len(t.reward_R)), value_RT)
    weighted = (t.probability_R.detach()[:, None] * credit.advantage_NT * t.logp_RT).sum()
    (gradient,) = torch.autograd.grad(weighted, t.logits_SV)
    return gradient


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_with_the_true_values_is_unbiased_for_every_lambda(lam: float) -> None:
    t = zoo.tabular()
    found = gae_gradient(t, GAE(lam=lam, whiten=False), exact_values(t))
    torch.testing.assert_close(found, t.true_gradient(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("lam", "unbiased"), [(1.0, True), (0.95, False), (0.0, False)])
def test_gae_with_wrong_values_is_unbiased_at_lambda_1_only(lam: float, unbiased: bool) -> None:
    """At lambda 1 the values are no more than a baseline: "PPO trades variance for bias" is false there."""
    t = zoo.tabular()
    wrong_S = torch.randn(7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    wrong_RT = torch.where(t.mask_RT, wrong_S[t.state_RT], 0)
    found = gae_gradient(t, GAE(lam=lam, whiten=False), wrong_RT)
    assert torch.allclose(found, t.true_gradient(), rtol=1e-10, atol=1e-13) == unbiased
