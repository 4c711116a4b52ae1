"""Two lambdas, and one that grows with the response."""

from __future__ import annotations

import math

import pytest
import torch

from advantages import GAE, DecoupledGAE, LengthAdaptiveGAE
from objectives import get
from objectives.conformance import world as zoo
from tests.advantages.test_estimate import group_of, mask, rows


def test_two_lambdas_by_hand() -> None:
    """r = (0, 0, 1), V = (1/2, 1/4, 1/2): d = (-1/4, 1/4, 1/2).

    lambda 1/2: A = (-1/4 + 1/4, 1/4 + 1/4, 1/2). lambda 1: sums (1/2, 3/4, 1/2) + V = (1, 1, 1), the returns.
    """
    part = DecoupledGAE(lam=0.5, critic_lam=1, whiten=False)
    credit = part(rows([0, 0, 1]), mask([1, 1, 1]), group_of(1), rows([0.5, 0.25, 0.5]))
    assert credit.advantage_NT.tolist() == [[0, 0.5, 0.5]]
    assert credit.return_NT is not None
    assert credit.return_NT.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.3)])
def test_equal_lambdas_are_gae(gamma: float, lam: float, whiten: bool) -> None:
    w = zoo.world()
    given = (torch.rand_like(w.old_value_NT) * w.mask_NT, w.mask_NT, w.group_N, w.old_value_NT)
    one = GAE(gamma=gamma, lam=lam, whiten=whiten)(*given)
    two = DecoupledGAE(gamma=gamma, lam=lam, critic_lam=lam, whiten=whiten)(*given)
    assert torch.equal(one.advantage_NT, two.advantage_NT)
    assert one.return_NT is not None and two.return_NT is not None
    assert torch.equal(one.return_NT, two.return_NT)


@pytest.mark.parametrize(
    ("length", "lam"),
    [(0, 0), (1, 0), (19, 0), (20, 0), (21, 1 / 21), (40, 0.5), (100, 0.8), (400, 0.95), (20_000, 0.999)],
)
def test_lambda_of_a_length(length: int, lam: float) -> None:
    """1 - 1/(0.05 l): 0 up to l = 20, where the formula would be negative; 0.95 at 400."""
    assert LengthAdaptiveGAE().lam(torch.tensor([float(length)]).double()).item() == pytest.approx(lam, abs=1e-12)


def test_its_reach_is_a_share_of_the_response() -> None:
    """sum_k lambda^k = 1 / (1 - lambda) = alpha l, at every length beyond 1 / alpha."""
    length_N = torch.tensor([30.0, 100.0, 5000.0]).double()
    torch.testing.assert_close(1 / (1 - LengthAdaptiveGAE().lam(length_N)), 0.05 * length_N)


def test_each_row_has_its_own_lambda() -> None:
    """alpha 1: a response of four tokens has lambda 3/4, one of two tokens 1/2, one of one token 0."""
    w = zoo.world()
    reward_NT = zoo.at_last_token(w.reward_N, w.mask_NT)
    told = LengthAdaptiveGAE(alpha=1, whiten=False)(reward_NT, w.mask_NT, w.group_N, w.old_value_NT)
    assert told.return_NT is not None
    for i, length in enumerate(w.mask_NT.sum(dim=1).tolist()):
        lam, value = 1 - 1 / length, [*w.old_value_NT[i, :length].tolist(), 0.0]
        reward = [0.0] * (length - 1) + [w.reward_N[i].item()]
        delta = [reward[t] + value[t + 1] - value[t] for t in range(length)]
        expected = [sum(lam**k * delta[t + k] for k in range(length - t)) for t in range(length)]
        assert told.advantage_NT[i, :length].tolist() == pytest.approx(expected, rel=1e-12)
        assert told.return_NT[i, :length].tolist() == pytest.approx([w.reward_N[i].item()] * length, rel=1e-12)
        assert (told.advantage_NT[i, length:] == 0).all() and (told.return_NT[i, length:] == 0).all()


@pytest.mark.parametrize("part", [DecoupledGAE(whiten=False), LengthAdaptiveGAE(alpha=1, whiten=False)], ids=str)
def test_masked_rows_and_holes_change_nothing(part: DecoupledGAE | LengthAdaptiveGAE) -> None:
    plain = part(rows([0, 0, 1]), mask([1, 1, 1]), group_of(1), rows([0.5, 0.25, 0.5]))
    reward_NT, value_NT = rows([0, math.nan, 0, 1], [math.nan] * 4), rows([0.5, math.nan, 0.25, 0.5], [math.nan] * 4)
    holey = part(reward_NT, mask([1, 0, 1, 1], [0, 0, 0, 0]), group_of(2), value_NT)
    torch.testing.assert_close(holey.advantage_NT[0, [0, 2, 3]], plain.advantage_NT[0])
    assert holey.advantage_NT[1].tolist() == [0, 0, 0, 0]


def test_it_takes_the_place_of_gae_in_a_row() -> None:
    row = get("ppo[advantage=length_adaptive_gae,advantage.alpha=0.5]")
    assert row.row()["advantage"] == "length_adaptive_gae(1, 0.5, 1)"
    loss, _ = zoo.loss_and_gradients(row, *zoo.step(row, zoo.world()))
    assert loss.isfinite()
    with pytest.raises(ValueError, match="advantage 'decoupled_gae' needs a trained critic"):
        get("grpo[advantage=decoupled_gae]")
    with pytest.raises(ValueError, match="advantage 'length_adaptive_gae' needs value_NT"):
        row.advantage(rows([1]), mask([1]), group_of(1))
    with pytest.raises(ValueError, match="ddof does nothing without whitening"):
        get("ppo[advantage=decoupled_gae,advantage.whiten=false,advantage.ddof=0]")
