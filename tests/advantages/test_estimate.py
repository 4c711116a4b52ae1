"""Advantage estimators on numbers small enough to follow by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from advantages import GAE, Group, RewardToGo

properties = settings(deadline=None, max_examples=25, derandomize=True)


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mask(*values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def column(*values: float) -> tuple[Tensor, Tensor]:
    """Responses of one token with these rewards, and their mask."""
    reward_N1 = rows(*[[x] for x in values])
    return reward_N1, torch.ones_like(reward_N1, dtype=torch.bool)


def group_of(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long)


class TestRewardToGo:
    def test_gain_is_discounted_from_the_end(self) -> None:
        """r = (1, 2, 4), gamma 1/2: G_2 = 4, G_1 = 2 + 4/2 = 4, G_0 = 1 + 4/2 = 3."""
        credit = RewardToGo(gamma=0.5)(rows([1, 2, 4]), mask([1, 1, 1]), group_of(1))
        assert credit.advantage_NT.tolist() == [[3, 4, 4]]
        assert credit.return_NT is None

    def test_reward_at_the_end_reaches_every_token_at_gamma_1(self) -> None:
        credit = RewardToGo()(rows([0, 0, 5, 0]), mask([1, 1, 1, 0]), group_of(1))
        assert credit.advantage_NT.tolist() == [[5, 5, 5, 0]]

    def test_batch_mean_takes_every_response_with_a_token(self) -> None:
        """Returns 3, 0, 6 and one unknown: b = 9/3 = 3, over prompts and the own response alike."""
        reward_NT, mask_NT = rows([0, 3], [0, 0], [6, 0], [99, 99]), mask([1, 1], [1, 1], [1, 0], [0, 0])
        credit = RewardToGo(baseline="batch_mean")(reward_NT, mask_NT, torch.tensor([0, 0, 1, 1]))
        assert credit.advantage_NT.tolist() == [[0, 0], [-3, -3], [3, 0], [0, 0]]

    def test_leave_one_out_within_the_group(self) -> None:
        """Group a: 1, 0, 2: others' means 1, 3/2, 1/2, so 0, -3/2, 3/2. Group b: 5, 1: 4, -4. Ids interleaved."""
        reward_N1, mask_N1 = column(1, 5, 0, 1, 2)
        credit = RewardToGo(baseline="leave_one_out")(reward_N1, mask_N1, torch.tensor([7, -3, 7, -3, 7]))
        assert credit.advantage_NT.flatten().tolist() == [0, 4, -1.5, -4, 1.5]

    def test_leave_one_out_alone_has_no_credit(self) -> None:
        reward_N1, mask_N1 = column(3, 1, 2)
        mask_N1[2] = False  # the second group's other response is unknown
        credit = RewardToGo(baseline="leave_one_out")(reward_N1, mask_N1, torch.tensor([0, 1, 1]))
        assert credit.advantage_NT.flatten().tolist() == [0, 0, 0]

    def test_baseline_is_the_return_and_not_the_sum_of_rewards(self) -> None:
        """gamma 1/2, rewards (0, 4) and (0, 0): G = (2, 4), (0, 0); b = mean of G_0 = 1."""
        credit = RewardToGo(baseline="batch_mean", gamma=0.5)(rows([0, 4], [0, 0]), mask([1, 1], [1, 1]), group_of(2))
        assert credit.advantage_NT.tolist() == [[1, 3], [-1, -1]]

    def test_a_greedy_baseline_is_the_prompts_own(self) -> None:
        """Returns 3, 1 beside a greedy reward of 2; 5 where the greedy response has none: a baseline of 0."""
        reward_NT, mask_NT = rows([0, 3], [1, 0], [5, 0], [9, 9]), mask([1, 1], [1, 0], [1, 0], [0, 0])
        greedy_N = torch.tensor([2, 2, math.nan, math.nan]).double()
        credit = RewardToGo(baseline="greedy")(reward_NT, mask_NT, torch.tensor([0, 0, 1, 1]), greedy_N=greedy_N)
        assert credit.advantage_NT.tolist() == [[1, 1], [-1, 0], [5, 0], [0, 0]]
        with pytest.raises(ValueError, match="advantage 'reward_to_go' needs greedy_N"):
            RewardToGo(baseline="greedy")(reward_NT, mask_NT, torch.tensor([0, 0, 1, 1]))

    def test_group_mean_has_the_own_response_in_it(self) -> None:
        """Group a: 1, 0, 2: mean 1. Group b: 5, 1 and one unknown: mean 3. Group c: alone, its own baseline."""
        reward_N1, mask_N1 = column(1, 5, 0, math.nan, 1, 2, 7)
        mask_N1[3] = False
        credit = RewardToGo(baseline="group_mean")(reward_N1, mask_N1, torch.tensor([7, -3, 7, -3, -3, 7, 0]))
        assert credit.advantage_NT.flatten().tolist() == [0, 2, -1, 0, -2, 1, 0]

    def test_group_length_mean_weighs_by_length(self) -> None:
        """Group a: 3 at length 1, 0 at length 2: b = (1*3 + 2*0) / 3 = 1. Group b: alone."""
        reward_NT, mask_NT = rows([3, 9], [0, 0], [0, 4]), mask([1, 0], [1, 1], [1, 1])
        credit = RewardToGo(baseline="group_length_mean")(reward_NT, mask_NT, torch.tensor([0, 0, 1]))
        assert credit.advantage_NT.tolist() == [[2, 0], [-1, -1], [0, 0]]

    def test_what_the_baselines_need(self) -> None:
        grouped = {b: {"group"} for b in ("leave_one_out", "group_mean", "group_length_mean")}
        needs = {"none": set(), "batch_mean": set(), "greedy": {"greedy"}, **grouped}
        assert {b: RewardToGo(baseline=b).needs for b in needs} == needs


class TestGroup:
    def test_std_divides_by_n_minus_1(self) -> None:
        """Rewards 1, 0, 2: mean 1, centred 0, -1, 1, variance 2 / (3 - 1) = 1."""
        reward_N1, mask_N1 = column(1, 0, 2)
        credit = Group(eps=0)(reward_N1, mask_N1, group_of(3))
        assert credit.advantage_NT.flatten().tolist() == [0, -1, 1]

    def test_population_std_on_request(self) -> None:
        """Variance 2 / 3: advantages 0, -+sqrt(3/2)."""
        reward_N1, mask_N1 = column(1, 0, 2)
        credit = Group(eps=0, ddof=0)(reward_N1, mask_N1, group_of(3))
        assert credit.advantage_NT.flatten().tolist() == pytest.approx([0, -math.sqrt(1.5), math.sqrt(1.5)])

    def test_eps_is_added_to_the_std(self) -> None:
        """std 1, eps 1: half. The default, 1e-6, is in the sixth place."""
        reward_N1, mask_N1 = column(1, 0, 2)
        half = Group(eps=1)(reward_N1, mask_N1, group_of(3)).advantage_NT
        assert half.flatten().tolist() == [0, -0.5, 0.5]
        default = Group()(reward_N1, mask_N1, group_of(3)).advantage_NT
        assert default.flatten().tolist() == pytest.approx([0, -1 / (1 + 1e-6), 1 / (1 + 1e-6)], rel=1e-14)

    def test_without_std_only_centred(self) -> None:
        reward_N1, mask_N1 = column(1, 0, 5)
        assert Group(scale="none")(reward_N1, mask_N1, group_of(3)).advantage_NT.flatten().tolist() == [-1, -2, 3]

    @pytest.mark.parametrize("ddof", [0, 1])
    def test_batch_std_is_that_of_all_rewards(self, ddof: int) -> None:
        """Rewards 3, 1 and 5, 5 and one unknown: mean 14/4 = 7/2, squares 1/4 + 25/4 + 9/4 + 9/4 = 11; means 2, 5."""
        reward_N1, mask_N1 = column(3, 1, math.nan, 5, 5)
        mask_N1[2] = False
        credit = Group(scale="batch_std", ddof=ddof, eps=0)(reward_N1, mask_N1, torch.tensor([0, 0, 0, 1, 1]))
        one = (11 / (4 - ddof)) ** -0.5
        assert credit.advantage_NT.flatten().tolist() == pytest.approx([one, -one, 0, 0, 0], rel=1e-14)

    def test_batch_std_of_equal_rewards_and_of_one(self) -> None:
        reward_N1, mask_N1 = column(2, 2, 2)
        for rows_ in (slice(0, 3), slice(0, 1)):
            credit = Group(scale="batch_std", eps=0)(reward_N1[rows_], mask_N1[rows_], group_of(3)[rows_])
            assert (credit.advantage_NT == 0).all()

    @pytest.mark.parametrize("scale", ["std", "batch_std", "none"])
    @pytest.mark.parametrize("reward", [0.1, 0.7, 1 / 3, -0.3, 0.0])
    @pytest.mark.parametrize("samples", [3, 6, 7, 10])
    def test_equal_rewards_are_silent_whatever_rounding_leaves(self, scale: str, reward: float, samples: int) -> None:
        """In float32 ten times 0.1 does not add up to 1: r - mean is 1e-9, which eps alone would make visible."""
        reward_N1 = torch.full((samples, 1), reward)
        assert reward_N1.dtype == torch.float32
        credit = Group(scale=scale)(reward_N1, torch.ones_like(reward_N1, dtype=torch.bool), group_of(samples))
        assert (credit.advantage_NT == 0).all()

    def test_the_residue_is_real(self) -> None:
        """The case above is not hypothetical: some of those means differ from their rewards."""
        means = [torch.full((n,), r).sum() / n - torch.tensor(r) for n in (3, 6, 7, 10) for r in (0.1, 0.7, 1 / 3)]
        assert any(x != 0 for x in means)

    @pytest.mark.parametrize("scale", ["std", "none"])
    def test_group_of_one_has_no_credit(self, scale: str) -> None:
        reward_N1, mask_N1 = column(3, 1)
        credit = Group(scale=scale)(reward_N1, mask_N1, torch.tensor([0, 1]))
        assert credit.advantage_NT.flatten().tolist() == [0, 0]

    @pytest.mark.parametrize("samples", [2, 4, 16])
    def test_one_right_among_g(self, samples: int) -> None:
        """mean 1/G, variance (1/G)(1 - 1/G) G / (G-1) = 1/G: right (1 - 1/G) sqrt(G), wrong -1/sqrt(G)."""
        reward_N1, mask_N1 = column(1, *[0] * (samples - 1))
        advantage = Group(eps=0)(reward_N1, mask_N1, group_of(samples)).advantage_NT.flatten().tolist()
        assert advantage[0] == pytest.approx((1 - 1 / samples) * samples**0.5, rel=1e-12)
        assert advantage[1:] == pytest.approx([-(samples**-0.5)] * (samples - 1), rel=1e-12)

    def test_unknown_rewards_are_not_in_the_group(self) -> None:
        """The masked row's reward is nan; the others are as if it were not there: 1, 0 with std sqrt(1/2)."""
        reward_N1, mask_N1 = column(1, math.nan, 0)
        mask_N1[1] = False
        credit = Group(eps=0)(reward_N1, mask_N1, group_of(3))
        assert credit.advantage_NT.flatten().tolist() == pytest.approx([0.5**0.5, 0, -(0.5**0.5)])

    def test_group_ids_may_be_interleaved_and_groups_unequal(self) -> None:
        """Group 9: 4, 2 (centred 1, -1). Group 2: 1, 0, 2 (0, -1, 1). Group 5: alone."""
        reward_N1, mask_N1 = column(4, 1, 0, 2, 2, 8)
        credit = Group(scale="none")(reward_N1, mask_N1, torch.tensor([9, 2, 2, 9, 2, 5]))
        assert credit.advantage_NT.flatten().tolist() == [1, 0, -1, -1, 1, 0]

    def test_credit_is_the_same_at_every_token_and_0_outside(self) -> None:
        """A response's reward is the sum over its tokens: 1 + 1 against 0."""
        credit = Group(scale="none")(rows([1, 1, 7], [0, 7, 7]), mask([1, 1, 0], [1, 0, 0]), group_of(2))
        assert credit.advantage_NT.tolist() == [[1, 1, 0], [-1, 0, 0]]

    def test_small_shaped_differences_are_blown_up(self) -> None:
        """Why dynamic sampling looks at accuracy: an all-right group that differs by 0.01 gets |A| of order 1."""
        reward_N1, mask_N1 = column(1, 1, 0.99, 1)
        assert Group()(reward_N1, mask_N1, group_of(4)).advantage_NT.min() == pytest.approx(-1.5, abs=1e-3)

    @properties
    @given(
        rewards=st.lists(st.integers(-4, 4), min_size=1, max_size=12),
        groups=st.lists(st.integers(0, 3), min_size=12, max_size=12),
        scale=st.sampled_from(["std", "none"]),
    )
    def test_credit_of_a_group_sums_to_zero(self, rewards: list[int], groups: list[int], scale: str) -> None:
        reward_N1, mask_N1 = column(*rewards)
        group_N = torch.tensor(groups[: len(rewards)])
        advantage_N = Group(scale=scale)(reward_N1, mask_N1, group_N).advantage_NT.flatten()
        for g in set(groups[: len(rewards)]):
            assert advantage_N[group_N == g].sum().item() == pytest.approx(0, abs=1e-9)
            assert (advantage_N[group_N == g] * (reward_N1.flatten()[group_N == g])).sum() >= -1e-9


def test_an_empty_response_may_count_as_in_verl() -> None:
    """Rewards 1, 0 and a response without a token. Counted, with reward 0: mean 1/3, variance (4 + 1 + 1) / 9 / 2 =
    1/3, so sqrt(4/3) and -sqrt(1/3). Left out: mean 1/2, variance 1/2, so +-sqrt(1/2). Its own advantage is 0."""
    reward_NT, mask_NT = rows([1], [0], [7]), mask([1], [1], [0])
    counted = Group(empty="count", eps=0)(reward_NT, mask_NT, group_of(3)).advantage_NT
    torch.testing.assert_close(counted, rows([math.sqrt(4 / 3)], [-math.sqrt(1 / 3)], [0]))
    without = Group(eps=0)(reward_NT, mask_NT, group_of(3)).advantage_NT
    torch.testing.assert_close(without, rows([math.sqrt(1 / 2)], [-math.sqrt(1 / 2)], [0]))
    alone = Group(empty="count", eps=0)(rows([1], [7]), mask([1], [0]), group_of(2)).advantage_NT
    torch.testing.assert_close(alone, rows([math.sqrt(1 / 2)], [0]))  # mean 1/2, variance 1/2


class TestGAE:
    def test_by_hand(self) -> None:
        """gamma 1, lambda 1/2, r = (0, 0, 1), V = (1/2, 1/4, 1/2), V after the end 0.

        d_2 = 1 + 0 - 1/2 = 1/2,  d_1 = 0 + 1/2 - 1/4 = 1/4,  d_0 = 0 + 1/4 - 1/2 = -1/4
        A_2 = 1/2,  A_1 = 1/4 + 1/2 * 1/2 = 1/2,  A_0 = -1/4 + 1/2 * 1/2 = 0;  R = A + V = (1/2, 3/4, 1)
        """
        gae = GAE(lam=0.5, whiten=False)
        credit = gae(rows([0, 0, 1]), mask([1, 1, 1]), group_of(1), rows([0.5, 0.25, 0.5]))
        assert credit.advantage_NT.tolist() == [[0, 0.5, 0.5]]
        assert credit.return_NT is not None
        assert credit.return_NT.tolist() == [[0.5, 0.75, 1]]

    def test_gamma_discounts_value_and_trace(self) -> None:
        """gamma 1/2, lambda 1/2, r = (1, 2), V = (3, 4): d_1 = -2, d_0 = 1 + 2 - 3 = 0, A_0 = 0 + 1/4 * -2 = -1/2."""
        gae = GAE(gamma=0.5, lam=0.5, whiten=False)
        credit = gae(rows([1, 2]), mask([1, 1]), group_of(1), rows([3, 4]))
        assert credit.advantage_NT.tolist() == [[-0.5, -2]]

    def test_lambda_1_without_values_is_reward_to_go(self) -> None:
        reward_NT, mask_NT = rows([1, 2, 4], [3, 5, 0]), mask([1, 1, 1], [1, 1, 0])
        for gamma in (1.0, 0.5):
            gae = GAE(gamma=gamma, lam=1, whiten=False)(reward_NT, mask_NT, group_of(2), torch.zeros(2, 3).double())
            gain = RewardToGo(gamma=gamma)(reward_NT, mask_NT, group_of(2))
            assert torch.equal(gae.advantage_NT, gain.advantage_NT)

    def test_lambda_0_is_the_td_residual(self) -> None:
        """d = (1 + 2 - 1, 2 + 5 - 2, 4 + 0 - 5) = (2, 5, -1)."""
        gae = GAE(lam=0, whiten=False)
        assert gae(rows([1, 2, 4]), mask([1, 1, 1]), group_of(1), rows([1, 2, 5])).advantage_NT.tolist() == [[2, 5, -1]]

    def test_returns_are_taken_before_whitening(self) -> None:
        reward_NT, mask_NT, value_NT = rows([0, 1], [0, 0]), mask([1, 1], [1, 1]), rows([0.5, 0.2], [0.1, 0.3])
        plain = GAE(whiten=False)(reward_NT, mask_NT, group_of(2), value_NT)
        white = GAE(whiten=True)(reward_NT, mask_NT, group_of(2), value_NT)
        assert plain.return_NT is not None and white.return_NT is not None
        assert torch.equal(plain.return_NT, white.return_NT)
        torch.testing.assert_close(plain.return_NT, plain.advantage_NT + value_NT)
        assert not torch.allclose(plain.advantage_NT, white.advantage_NT)
        assert white.advantage_NT.mean().item() == pytest.approx(0, abs=1e-12)

    def test_whitening_is_over_the_rollout_and_not_the_row(self) -> None:
        """One-token rows: A = 1, 2, 3, so -1, 0, 1 (variance 1 with n-1); within a row it would be 0."""
        reward_N1, mask_N1 = column(1, 2, 3)
        credit = GAE()(reward_N1, mask_N1, torch.arange(3), torch.zeros(3, 1).double())
        assert credit.advantage_NT.flatten().tolist() == pytest.approx([-1, 0, 1], abs=1e-7)

    def test_missing_values_say_so(self) -> None:
        reward_N1, mask_N1 = column(1)
        with pytest.raises(ValueError, match="advantage 'gae' needs value_NT"):
            GAE()(reward_N1, mask_N1, group_of(1))

    def test_fully_masked_row(self) -> None:
        credit = GAE()(rows([9, 9], [0, 1]), mask([0, 0], [1, 1]), group_of(2), rows([7, 7], [0.1, 0.2]))
        alone = GAE()(rows([0, 1]), mask([1, 1]), group_of(1), rows([0.1, 0.2]))
        assert credit.advantage_NT[0].tolist() == [0, 0]
        torch.testing.assert_close(credit.advantage_NT[1:], alone.advantage_NT)


ESTIMATORS = [
    RewardToGo(gamma=0.9),
    RewardToGo(baseline="batch_mean", gamma=0.9),
    RewardToGo(baseline="leave_one_out"),
    RewardToGo(baseline="group_mean", whiten=True),
    RewardToGo(baseline="group_length_mean", gamma=0.9),
    Group(),
    Group(scale="batch_std"),
    Group(scale="none"),
    GAE(gamma=0.9),
    GAE(lam=0.3, whiten=False),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@properties
@given(data=st.data())
def test_holes_change_nothing(estimator: GAE, data: st.DataObject) -> None:
    """Tokens that the policy did not choose, put in anywhere with any reward and value, are stepped over."""
    length = data.draw(st.integers(1, 4))
    number = st.floats(-2, 2, width=16)
    matrix = st.lists(st.lists(number, min_size=length, max_size=length), min_size=4, max_size=4)
    reward_NT, value_NT = rows(*data.draw(matrix)), rows(*data.draw(matrix))
    group_N = torch.tensor([0, 1, 1, 0])
    plain = estimator(reward_NT, torch.ones(4, length, dtype=torch.bool), group_N, value_NT)
    kept = sorted(data.draw(st.sets(st.integers(0, length + 2), min_size=length, max_size=length)))
    wide = (4, length + 3)
    mask_NT = torch.zeros(wide, dtype=torch.bool)
    mask_NT[:, kept] = True
    holey = estimator(spread(reward_NT, wide, kept), mask_NT, group_N, spread(value_NT, wide, kept))
    torch.testing.assert_close(holey.advantage_NT[:, kept], plain.advantage_NT, rtol=1e-9, atol=1e-9)
    assert (holey.advantage_NT[~mask_NT] == 0).all()
    if plain.return_NT is not None and holey.return_NT is not None:
        torch.testing.assert_close(holey.return_NT[:, kept], plain.return_NT, rtol=1e-9, atol=1e-9)
        assert (holey.return_NT[~mask_NT] == 0).all()


def spread(x_NT: Tensor, shape: tuple[int, int], kept: list[int]) -> Tensor:
    """The columns of x at the places `kept`, garbage between them."""
    wide = torch.full(shape, math.nan, dtype=x_NT.dtype)
    wide[:, kept] = x_NT
    return wide


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_a_rollout_without_tokens_has_no_credit(estimator: GAE) -> None:
    credit = estimator(rows([1, 2]), mask([0, 0]), group_of(1), rows([1, 2]))
    assert credit.advantage_NT.tolist() == [[0, 0]]


@pytest.mark.parametrize("fields", [{"ddof": 0}, {"eps": 0.1}, {"ddof": 0, "eps": 0.1}])
def test_group_refuses_settings_that_do_nothing(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="does nothing with scale='none': leave it out"):
        Group(scale="none", **fields)
