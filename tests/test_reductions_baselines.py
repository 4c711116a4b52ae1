"""Where the presets of baselines, critics and groups coincide with others, and where they must not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from advantages import Group, RewardToGo
from objectives import get
from objectives.conformance import world as zoo
from tests.test_reductions import CLOSE, exact_values, expected_gradient, gae_gradient, gradient


def equal_lengths() -> zoo.World:
    """Two prompts with two responses of seven tokens each, mixed and all right."""
    w = zoo.world().rows(torch.tensor([1, 7, 9, 15]))
    reward_N = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    return dataclasses.replace(w, group_N=torch.tensor([0, 0, 1, 1]), reward_N=reward_N)


def test_rloo_is_reinforce_with_the_others_as_baseline_and_kl_on_the_whole_response() -> None:
    """Without KL the two ways to leave one out are one; with it, reward-to-go charges a token only what follows."""
    w = zoo.world()
    told = get("rloo[shape=none]"), get("reinforce[advantage.baseline=leave_one_out]")
    torch.testing.assert_close(gradient(told[0], w), gradient(told[1], w), **CLOSE)
    to_go = get("rloo[advantage=reward_to_go,advantage.baseline=leave_one_out]")
    assert not torch.allclose(gradient(get("rloo"), w), gradient(to_go, w))


@pytest.mark.parametrize("samples", [2, 4])
def test_rloo_is_dr_grpo_times_g_over_g_minus_1(samples: int) -> None:
    """On-policy, without KL: r_i - mean of the others = G/(G-1) (r_i - mean); and sequence_sum = 32 constant(32)."""
    w = zoo.world().on_policy()
    w = dataclasses.replace(w, group_N=torch.arange(16) // samples)
    rloo, dr_grpo = gradient(get("rloo[shape=none]"), w), gradient(get("dr_grpo"), w)
    torch.testing.assert_close(rloo, 32 * samples / (samples - 1) * dr_grpo, **CLOSE)


def test_opo_at_equal_lengths_is_reinforce_with_the_groups_mean() -> None:
    w, same = zoo.world(), equal_lengths()
    mean = get("reinforce[advantage.baseline=group_mean]")
    torch.testing.assert_close(gradient(get("opo"), same), gradient(mean, same), **CLOSE)
    assert gradient(mean, same).abs().max() > 0.01
    assert not torch.allclose(gradient(get("opo"), w), gradient(mean, w))


def test_opos_advantages_sum_to_zero_over_tokens_and_not_over_responses() -> None:
    """sum_i l_i (r_i - b) = 0 within every group, by the choice of b."""
    w = zoo.world()
    advantage_NT = zoo.credit(get("opo"), w).advantage_NT
    for g in range(4):
        assert advantage_NT[w.group_N == g].sum().item() == pytest.approx(0, abs=1e-13)
    assert abs(advantage_NT[:, 0].sum().item()) > 0.1


def test_dr_grpo_is_grpo_at_equal_length_and_std() -> None:
    """Seven tokens and rewards a, b per group: GRPO divides by 7 and |a - b| / sqrt(2), Dr. GRPO by 32."""
    w = dataclasses.replace(equal_lengths(), reward_N=torch.tensor([1.0, 0.0, 3.0, 4.0], dtype=torch.float64))
    grpo = get("grpo[kl=none,advantage.eps=0]")
    torch.testing.assert_close(gradient(get("dr_grpo"), w), gradient(grpo, w) * (7 / 32 * 0.5**0.5), **CLOSE)


def test_lite_ppo_of_one_prompt_is_grpo_with_a_token_mean() -> None:
    """The batch is the group; with several prompts the std is another number, the same for all of them."""
    w = zoo.world()
    one, grpo = w.rows(torch.arange(4)), get("grpo[kl=none,aggregate=token_mean]")
    torch.testing.assert_close(gradient(get("lite_ppo"), one), gradient(grpo, one), **CLOSE)
    plain = get("lite_ppo[advantage.scale=none]")
    std = w.reward_N.std() + 1e-6
    lite = zoo.credit(get("lite_ppo"), w).advantage_NT
    torch.testing.assert_close(lite, zoo.credit(plain, w).advantage_NT / std, **CLOSE)


def test_reinforce_pp_baseline_at_equal_lengths_only_scales() -> None:
    """Centred groups of equal lengths have mean 0 over all tokens: whitening divides by one number for all."""
    same = equal_lengths()
    white = zoo.credit(get("reinforce_pp_baseline"), same).advantage_NT
    plain = zoo.credit(get("dr_grpo"), same).advantage_NT
    torch.testing.assert_close(white, plain / (plain.square().sum() / 27 + 1e-8).sqrt(), **CLOSE)  # 28 tokens
    silent_N = (zoo.world().group_N == 1) | (zoo.world().group_N == 2)
    assert (zoo.credit(get("reinforce_pp_baseline"), zoo.world()).advantage_NT[silent_N] != 0).any()


def test_ppo_kl_is_ppo_without_a_clip_before_the_first_update_and_held_back_after_it() -> None:
    w, on_policy = zoo.world(), zoo.world().on_policy()
    torch.testing.assert_close(gradient(get("ppo_kl"), on_policy), gradient(get("ppo"), on_policy), **CLOSE)
    assert get("ppo_kl").at_ratio_one() == get("ppo").at_ratio_one()
    free = get("ppo_kl[kl=none]")
    torch.testing.assert_close(gradient(free, w), gradient(get("ppo[surrogate=linear]"), w), **CLOSE)
    held = gradient(get("ppo_kl"), w) - gradient(free, w)  # beta (rho - 1) / N: against the way the ratio went
    rho_NT = torch.where(w.mask_NT, (w.logp_NT - w.old_logp_NT).exp(), 1)
    torch.testing.assert_close(held, (rho_NT - 1) / w.mask_NT.sum(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["grpo_2", "grpo"])
def test_two_responses_are_told_which_is_better_and_nothing_else(name: str) -> None:
    """+-1 / sqrt(2) up to the 1e-6 beside the std, whatever the rewards; 0 for equal ones."""
    reward_N = torch.tensor([3.0, -1.0, 0.2, 0.7, 5.0, 5.0], dtype=torch.float64)
    group_N, mask_N1 = torch.arange(6) // 2, torch.ones(6, 1, dtype=torch.bool)
    told_N = get(name).advantage(reward_N[:, None], mask_N1, group_N).advantage_NT.flatten()
    half = 0.5**0.5
    assert told_N.tolist() == pytest.approx([half, -half, -half, half, 0, 0], rel=1e-5)


def test_a2c_is_ppo_without_ratio_clip_kl_and_whitening() -> None:
    on_policy = zoo.world().on_policy()
    ppo = get("ppo[shape=none,advantage.lam=1,advantage.whiten=false,value=plain]")
    torch.testing.assert_close(gradient(get("a2c"), on_policy), gradient(ppo, on_policy), **CLOSE)
    assert not torch.allclose(gradient(get("a2c"), zoo.world()), gradient(ppo, zoo.world()))


def test_a2c_with_a_critic_that_says_nothing_is_reinforce_without_baseline() -> None:
    blind = dataclasses.replace(zoo.world(), old_value_NT=torch.zeros_like(zoo.world().old_value_NT))
    reinforce = get("reinforce[advantage.baseline=none,aggregate=token_mean]")
    torch.testing.assert_close(gradient(get("a2c"), blind), gradient(reinforce, blind), **CLOSE)


def test_a2cs_expected_gradient_is_exact_whatever_its_critic_says() -> None:
    t = zoo.tabular()
    wrong_S = torch.randn(7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for value_RT in (exact_values(t), torch.where(t.mask_RT, wrong_S[t.state_RT], 0)):
        found = gae_gradient(t, get("a2c").advantage, value_RT)  # type: ignore[arg-type]
        torch.testing.assert_close(found, t.true_gradient(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("advantage", "unbiased"),
    [
        (RewardToGo(baseline="group_mean"), True),
        (RewardToGo(baseline="group_length_mean"), False),  # the weights know the own length
        (Group(scale="batch_std"), False),
    ],
    ids=str,
)
def test_expected_gradient_of_group_baselines(advantage: Group | RewardToGo, unbiased: bool) -> None:
    """Groups of three, every one with its probability: exact up to (G-1)/G, or not even in direction."""
    t = zoo.tabular(longest=2)
    found, true = expected_gradient(t, advantage, samples=3), t.true_gradient()
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), true.flatten(), dim=0)
    assert (cosine > 1 - 1e-12) == unbiased
    if unbiased:
        torch.testing.assert_close(found, 2 / 3 * true, rtol=1e-10, atol=1e-13)
