"""The optimal token baseline against verl's loops, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from advantages import OptimalToken, RolloutView
from objectives import get
from objectives.conformance import world as zoo


def view(reward_NT: list[list[float]], pi_NT: list[list[float]], collision_NT: list[list[float]]) -> RolloutView:
    """A group of one prompt; a probability of 0 stands where there is no token."""
    pi = torch.tensor(pi_NT, dtype=torch.float64)
    given = {"logp_NT": torch.where(pi > 0, pi, 1).log(), "collision_NT": torch.tensor(collision_NT).double()}
    return RolloutView.of(torch.tensor(reward_NT).double(), pi > 0, torch.zeros(len(pi)), **given)


def verl(
    reward: list[list[float]], logp: list[list[float]], collision: list[list[float]], group: list[int], zero_tail: bool
) -> list[list[float]]:
    """verl core_algos.py, compute_optimal_token_baseline_advantage: per group and time step, + 1e-8, zero tail."""
    returns = [[sum(row[t:]) for t in range(len(row))] for row in reward]
    squares = [
        [1 - 2 * math.exp(x) + c for x, c in zip(*pair, strict=True)] for pair in zip(logp, collision, strict=True)
    ]
    gathered = [[sum(row[: t + 1]) for t in range(len(row))] for row in squares]
    advantage = []
    for i, row in enumerate(returns):
        peers = [j for j in range(len(group)) if group[j] == group[i]]
        lengths = sorted(len(returns[j]) for j in peers)
        if len(peers) == 1:
            advantage.append(list(row))
            continue
        mine = []
        for t in range(len(row)):
            reach = [j for j in peers if len(returns[j]) > t]
            top = sum(returns[j][t] * gathered[j][t] for j in reach)
            baseline = top / (sum(gathered[j][t] for j in reach) + 1e-8)
            longest_alone = lengths[-1] == len(row) and lengths[-1] > lengths[-2]
            mine.append(row[t] - (0.0 if zero_tail and longest_alone and t >= lengths[-2] else baseline))
        advantage.append(mine)
    return advantage


def rows(x_NT: Tensor, mask_NT: Tensor) -> list[list[float]]:
    return [x[m].tolist() for x, m in zip(x_NT, mask_NT, strict=True)]


@pytest.mark.parametrize("tail", ["zero", "own"])
def test_it_is_verls_with_uneven_lengths_and_a_reward_at_every_token(tail: str) -> None:
    w = zoo.world()
    group_N = torch.tensor([0, 1, 0, 1, 0, 1, 2, 2, 0, 1, 2, 0, 2, 1, 2, 3])  # and a group of one
    reward_NT = torch.where(w.mask_NT, 0.1 * w.old_value_NT, 0)
    seen = zoo.replace(w, group_N=group_N).view(get("otb"))
    seen = RolloutView.of(reward_NT, w.mask_NT, group_N, **seen.given)
    found = OptimalToken(tail=tail).estimate(seen).advantage_NT
    told = (rows(x, w.mask_NT) for x in (reward_NT, w.old_logp_NT, seen.collision_NT))
    expected = verl(*told, group_N.tolist(), zero_tail=tail == "zero")
    for i, (row, mask_T) in enumerate(zip(expected, w.mask_NT, strict=True)):
        if tail == "own" and i == 15:
            row = [0.0] * len(row)  # verl keeps the return of a response alone in its group in any case
        assert found[i, mask_T].tolist() == pytest.approx(row, rel=1e-6, abs=1e-7), i
    assert not found[~w.mask_NT].any()


def test_two_responses_by_hand() -> None:
    """pi 1/2 with sum of squares 1/2: 1 - 1 + 1/2 = 1/2 per token. pi 1/4, sum 1/4: 1 - 1/2 + 1/4 = 3/4. Rewards 1 and
    0 at the end. First tokens: B = (1 * 1/2 + 0) / (1/2 + 3/4) = 2/5. Second: W = 1 and 3/2, the same 2/5. The third
    token of the first response has nothing beside it."""
    told = view([[0, 0, 1], [0, 0, 0]], [[0.5] * 3, [0.25, 0.25, 0]], [[0.5] * 3, [0.25] * 3])
    assert OptimalToken().estimate(told).advantage_NT.tolist() == [
        pytest.approx([0.6, 0.6, 1.0]),
        pytest.approx([-0.4, -0.4, 0]),
    ]
    assert OptimalToken(tail="own").estimate(told).advantage_NT[0, 2] == 0


def test_positions_count_the_tokens_that_the_policy_chose() -> None:
    """An environment's token in the middle, which the policy did not choose, changes nothing at the others."""
    plain = view([[0, 1], [0, 0]], [[0.5, 0.3], [0.25, 0.6]], [[0.5, 0.4], [0.25, 0.5]])
    holes = view([[0, 0, 1], [0, 0, 0]], [[0.5, 0, 0.3], [0.25, 0.6, 0]], [[0.5, 9, 0.4], [0.25, 0.5, 9]])
    a, b = (OptimalToken().estimate(x).advantage_NT for x in (plain, holes))
    torch.testing.assert_close(a[0], b[0, [0, 2]])
    torch.testing.assert_close(a[1], b[1, :2])


def test_equal_weights_give_the_mean_and_zero_weights_no_division_by_zero() -> None:
    told = view([[1], [0], [0.5]], [[0.5]] * 3, [[0.5]] * 3)
    torch.testing.assert_close(OptimalToken().estimate(told).advantage_NT[:, 0], torch.tensor([0.5, -0.5, 0]).double())
    certain = view([[1], [0]], [[1.0]] * 2, [[1.0]] * 2)  # 1 - 2 + 1 = 0
    assert OptimalToken().estimate(certain).advantage_NT.isfinite().all()
