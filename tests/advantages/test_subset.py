"""A response that cannot be scored has no token to learn from: it is no member of its group."""

from __future__ import annotations

import math

import pytest
import torch

from advantages import Credit
from advantages.estimate import Advantage
from advantages.part import RunSettings
from advantages.several import DecoupledRewards
from advantages.subset import FilteredGroup, PassK
from advantages.view import RolloutView

MASK = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]], dtype=torch.bool)


def credit(estimator: Advantage, reward: list[float]) -> Credit:
    """Of one group of four; the reward stands on each response's last token, and the last response has none."""
    reward_NT = torch.zeros(4, 2, dtype=torch.float64)
    reward_NT[[0, 1, 2, 3], [1, 1, 0, 1]] = torch.tensor(reward, dtype=torch.float64)
    return estimator(reward_NT, MASK, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("unknown", [0.0, 7.0])
def test_the_lead_over_the_second_best_is_divided_by_the_spread_of_the_others(unknown: float) -> None:
    """1, 0, 1/4: the mean is 5/12, the squares of the differences 49 + 25 + 4 of 144ths, the variance 78 / 288."""
    lead = 0.75 / (math.sqrt(78 / 288) + 1e-6)
    advantage_NT = credit(PassK(), [1.0, 0.0, 0.25, unknown]).advantage_NT
    torch.testing.assert_close(advantage_NT[0], torch.full((2,), lead, dtype=torch.float64))
    assert not advantage_NT[1:].any()
    plain = credit(PassK(scale="none"), [1.0, 0.0, 0.25, unknown]).advantage_NT
    assert plain[0].tolist() == [0.75, 0.75] and not plain[1:].any()


def test_two_that_share_the_best_have_no_lead() -> None:
    assert not credit(PassK(), [1.0, 1.0, 0.25, 0.0]).advantage_NT.any()


def test_the_shorter_half_of_a_group_of_eight_is_four() -> None:
    """Lengths 1 to 8, rewards 1, 0, 0, 1 and so on: of the four kept the mean is 1/2, so each is above or below it."""
    mask_NT = torch.arange(8)[:, None] >= torch.arange(8)
    reward_NT = torch.zeros(8, 8, dtype=torch.float64)
    reward_NT[:, 0] = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    advantage_NT = FilteredGroup(keep=0.5)(reward_NT, mask_NT, torch.zeros(8, dtype=torch.int64)).advantage_NT
    assert advantage_NT[:, 0].sign().tolist() == [1, -1, -1, 1, 0, 0, 0, 0]


def test_a_filter_that_keeps_all_is_refused() -> None:
    with pytest.raises(ValueError, match="keeps all of them"):
        FilteredGroup(keep=0.5).check(RunSettings(max_length=8, group_size=2))
    assert FilteredGroup(keep=0.5).check(RunSettings(max_length=8, group_size=3)) == ()


def test_some_rows_of_a_view_have_their_own_tensors_and_lists() -> None:
    view = RolloutView.of(torch.arange(4.0)[:, None], MASK[:, :1], torch.tensor([0, 0, 1, 1]), value_NT=MASK[:, 1:])
    view = view.but(prompts=["a", "b", "c", "d"]).rows(torch.tensor([3, 1]))
    assert view.reward_NT[:, 0].tolist() == [3, 1] and view.group_N.tolist() == [1, 0]
    assert view.given["prompts"] == ["d", "b"] and view.given["value_NT"][:, 0].tolist() == [False, True]


@pytest.mark.parametrize(("state", "shown"), [(2, {"pass_k_state": 2.0}), (0.5, {"pass_k_state": 0.5}), ([1], {})])
def test_a_state_that_is_a_number_is_recorded(state: object, shown: dict[str, float]) -> None:
    assert PassK().state_metrics(state) == shown


def test_several_rewards_give_no_credit_outside_the_mask() -> None:
    """Rewards 1 and 0 for two responses of one group; the second has one token, and nothing stands behind it."""
    mask_NT = torch.tensor([[True, True], [True, False]])
    reward_NK = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    reward_NT = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    group_N = torch.zeros(2, dtype=torch.int64)
    view = RolloutView.of(reward_NT, mask_NT, group_N, reward_NK=reward_NK, names=("a", "b"))
    advantage_NT = DecoupledRewards(whiten=False).estimate(view).advantage_NT
    assert advantage_NT[1, 1] == 0
    assert advantage_NT[0, 0] == advantage_NT[0, 1] == -advantage_NT[1, 0] > 0
