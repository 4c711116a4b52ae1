"""A response that cannot be scored has no token to learn from: it is no member of its group."""

from __future__ import annotations

import math

import pytest
import torch

from advantages import Credit
from advantages.estimate import Advantage
from advantages.subset import PassK

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
