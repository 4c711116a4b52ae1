"""Exact means and variances against every ordered group, and against sampling."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import objectives
from objectives import get
from rlzoo.errors import UserError
from rlzoo.lab.group import SUPPLIED
from rlzoo.lab.measure import Setting, critic_values, measure, measured
from rlzoo.lab.moments import moments, sampled_moments
from rlzoo.lab.others import convolve, table_size
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world
from tests.lab.brute import every_group, moved

OBJECTIVES = [
    *(
        name
        for name in objectives.names()
        if get(name).needs <= SUPPLIED and get(name).tokens is None and get(name).imitation is None and name != "raft"
    ),
    "ppo[advantage.whiten=false]",
    "grpo[entropy=bonus]",
    "reinforce[advantage.baseline=leave_one_out,advantage.gamma=0.9]",
]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize(("kind", "longest", "size"), [("tabular", 2, 3), ("transformer", 2, 2), ("tabular", 3, 2)])
def test_exact_moments_are_those_of_every_group(name: str, kind: str, longest: int, size: int) -> None:
    at = moved(make_world(success=0.3, longest=longest, kind=kind))
    found = moments(get(name), at, size)
    mean_SV, variance, kept = every_group(get(name), at, size)
    assert found.method.startswith("exact")
    torch.testing.assert_close(found.mean_SV, mean_SV, rtol=1e-10, atol=1e-13)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.kept == pytest.approx(kept, rel=1e-12)
    assert mean_SV.abs().max() > 1e-3


@pytest.mark.parametrize(
    "change",
    [
        "tokens=clip_cov,tokens.low=0.05",
        "tokens=kl_cov,tokens.coef=3",
        "imitation=positive_likelihood,imitation.coef=1",
        "advantage=positives,aggregate=token_mean",
    ],
)
def test_what_depends_on_the_tokens_of_the_whole_group_is_sampled(change: str) -> None:
    """The tokens that a part chooses, a right response's share: no table has them. Sampling agrees with every group."""
    at = moved(make_world(success=0.3, longest=2))
    name = f"grpo[kl=none,surrogate=linear,{change}]"
    found = moments(get(name), at, 3, groups=2000)
    mean_SV, variance, _ = every_group(get(name), at, 3)
    assert found.method == "sampled (2000 groups)"
    assert (found.mean_SV - mean_SV).norm() < 2 * (variance / 2000) ** 0.5
    assert found.variance == pytest.approx(variance, rel=0.1)
    plain_SV, _, _ = every_group(get("grpo[kl=none,surrogate=linear]"), at, 3)
    assert (mean_SV - plain_SV).norm() > 4 * (variance / 2000) ** 0.5


def test_a_correction_has_nothing_to_correct_here() -> None:
    with pytest.raises(UserError, match=r"every weight of correction token\(2\) is 1: leave it out"):
        moments(get("grpo[correction=token]"), first_update(make_world()), 4)


@pytest.mark.parametrize("name", ["reinforce", "grpo", "dapo"])
def test_a_group_of_sixteen_agrees_with_sampling(name: str) -> None:
    at = moved(make_world(success=0.2, longest=3))
    exact, sampled = moments(get(name), at, 16), sampled_moments(get(name), at, 16, groups=1500, seed=3)
    assert exact.method.startswith("exact")
    standard_error = (exact.variance / 1500) ** 0.5
    assert (exact.mean_SV - sampled.mean_SV).norm() < 2 * standard_error
    assert sampled.variance == pytest.approx(exact.variance, rel=0.1)
    assert sampled.kept == pytest.approx(exact.kept, abs=0.03)
    assert sampled.clip_fraction == pytest.approx(exact.clip_fraction, abs=0.02)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("reinforce[advantage.baseline=none]", "exact (alone)"),
        ("grpo", "exact (returns)"),
        ("reinforce[advantage.gamma=0.9]", "exact (types)"),
        ("ppo", "sampled"),
    ],
)
def test_the_coarsest_sufficient_statistic_is_found(name: str, method: str) -> None:
    at = moved(make_world(success=0.3, longest=4))
    assert moments(get(name), at, 4 if "types" in method else 16, groups=100).method.startswith(method)


def test_without_selection_leave_one_out_is_the_true_gradient() -> None:
    at = first_update(make_world(success=0.1))
    rloo = get("reinforce[advantage.baseline=leave_one_out]")
    torch.testing.assert_close(moments(rloo, at, 16).mean_SV, at.true_gradient_SV, rtol=1e-10, atol=1e-13)


def test_a_greedy_baseline_is_unbiased_although_it_depends_on_the_policy() -> None:
    at = first_update(make_world(success=0.6))
    assert at.greedy_reward == 1  # so that something is subtracted
    remax = get("reinforce[advantage.baseline=greedy]")
    torch.testing.assert_close(moments(remax, at, 4).mean_SV, at.true_gradient_SV, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("size", [2, 5])
def test_the_law_of_the_others(size: int) -> None:
    p_R = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    class_R, length_R = torch.tensor([0, 1, 1]), torch.tensor([1, 2, 3])
    before, table = convolve(p_R, class_R, length_R, size)
    assert len(table.count_AC) == table_size(size, 2)
    assert table.law_AZ.sum().item() == pytest.approx(1, abs=1e-14)
    mean = (table.law_AZ.sum(dim=1)[:, None] * table.count_AC).sum(dim=0)
    assert mean.tolist() == pytest.approx([size * 0.5, size * 0.5], rel=1e-12)
    total = (table.law_AZ.sum(dim=0) * torch.arange(table.law_AZ.shape[1])).sum().item()
    assert total == pytest.approx(size * (0.5 + 0.4 + 0.9), rel=1e-12)
    assert before is not None and before.with_one_AC is not None
    grown = before.count_AC[:, None] + torch.eye(2, dtype=torch.long)
    assert torch.equal(table.count_AC[before.with_one_AC], grown)


def test_updates_leave_the_sampler_and_the_clip_begins_to_bind() -> None:
    rows = measure(get("grpo"), Setting(updates=4))
    assert [row.update for row in rows] == [1, 2, 3, 4]
    assert rows[0].kl_old == 0 and rows[0].clip_fraction == 0
    assert all(b.kl_old > a.kl_old for a, b in itertools.pairwise(rows))
    assert rows[-1].clip_fraction > 0.1
    assert rows[-1].cosine < rows[0].cosine


def test_measurements_of_an_unbiased_estimator() -> None:
    """REINFORCE with leave-one-out is exact in direction and scale; its error is its noise over the tokens spent."""
    (row,) = measure(get("reinforce[advantage.baseline=leave_one_out]"), Setting())
    assert row.cosine == pytest.approx(1, abs=1e-12)
    assert row.scale == pytest.approx(1, abs=1e-12)
    assert row.squared_bias == pytest.approx(0, abs=1e-14) and row.bias == pytest.approx(0, abs=1e-10)
    assert row.noise == pytest.approx(row.variance / row.squared_gradient * row.tokens, rel=1e-9)
    assert row.error(10 * row.noise) == pytest.approx(0.1, rel=1e-6)


def test_an_objective_of_ones_own_needs_no_more_than_its_parts() -> None:
    """An advantage that the laboratory has never seen, made of rewards and lengths, is measured exactly."""
    from advantages import Advantage, Credit

    class PerToken(Advantage, kind="test_reward_per_token"):
        """Reward per token minus the group's mean of it."""

        def __call__(self, reward_NT, mask_NT, group_N, value_NT=None) -> Credit:  # type: ignore[no-untyped-def]
            rate_N = reward_NT.sum(dim=1) / mask_NT.sum(dim=1)
            same_NN = (group_N[:, None] == group_N).double()
            mean_N = same_NN @ rate_N / same_NN.sum(dim=1)
            return Credit((rate_N - mean_N)[:, None] * mask_NT)

    try:
        own = get("grpo[kl=none]").but(advantage=PerToken())
        at = moved(make_world(success=0.3, longest=3))
        found = moments(own, at, 2)
        assert found.method == "exact (types)"
        torch.testing.assert_close(found.mean_SV, every_group(own, at, 2)[0], rtol=1e-10, atol=1e-13)
    finally:
        del Advantage.members["test_reward_per_token"]


def test_the_critics() -> None:
    world = make_world()
    exact_S, noisy_S, zero_S = (critic_values(world, critic) for critic in ("exact", "noisy", "zero"))
    assert exact_S[0].item() == pytest.approx(0.25, abs=1e-12)
    assert (zero_S == 0).all()
    assert 0.1 < (noisy_S - exact_S).std() < 0.6
    row = measure(get("ppo[advantage.whiten=false]"), replace(Setting(), critic="noisy"))[0]
    assert row.bias > 1e-3  # lambda 0.95 lets a wrong critic through


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_a_sampled_cosine_covers_the_exact_one(seed: int) -> None:
    grpo, at, setting = get("grpo"), moved(make_world(success=0.3)), Setting()
    exact = measured("grpo", setting, 1, at, moments(grpo, at, 8))
    found = measured("grpo", setting, 1, at, sampled_moments(grpo, at, 8, groups=400, seed=seed))
    slack = found.cosine_high - found.cosine_low
    assert 0 < slack < 0.1
    assert found.cosine_low - slack / 2 < exact.cosine < found.cosine_high + slack / 2
    assert found.squared_bias == pytest.approx(exact.squared_bias, rel=0.2)
    assert found.noise == pytest.approx(exact.noise, rel=0.3)
