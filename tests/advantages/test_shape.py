"""Reward shaping by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from advantages import KLInReward, RolloutView, RunSettings, SoftOverlong, at_last_token, shape_reward
from objectives import get


def context(mask_NT: Tensor, logp_NT: Tensor | None = None, ref_logp_NT: Tensor | None = None, max_length: int = 10):
    given = {"logp_NT": torch.zeros(mask_NT.shape) if logp_NT is None else logp_NT, "ref_logp_NT": ref_logp_NT}
    group_N = torch.arange(len(mask_NT))
    return RolloutView.of(torch.zeros(mask_NT.shape), mask_NT, group_N, max_length=max_length, **given)


def test_at_last_token() -> None:
    """The last token inside the mask, also after a hole; a row without tokens has no place."""
    mask_NT = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)
    x_N = torch.tensor([5.0, 7.0, math.nan])
    assert at_last_token(x_N, mask_NT).tolist() == [[0, 5, 0], [0, 0, 7], [0, 0, 0]]


@pytest.mark.parametrize(
    ("length", "penalty"),
    [
        (1, 0),
        (15, 0),  # below the knee at Lmax - Lcache = 16
        (16, 0),  # at the knee: (16 - 16) / 4
        (17, -0.25),  # (16 - 17) / 4
        (18, -0.5),
        (20, -1),  # at Lmax: (16 - 20) / 4
        (21, -1),  # beyond
        (30, -1),
    ],
)
def test_soft_overlong_curve(length: int, penalty: float) -> None:
    """Lmax 20, Lcache a fifth of it."""
    mask_NT = (torch.arange(30) < length)[None]
    reward_NT = at_last_token(torch.tensor([1.0], dtype=torch.float64), mask_NT)
    shaped = SoftOverlong(cache=0.2)(reward_NT, context(mask_NT, max_length=20))
    assert shaped.sum().item() == pytest.approx(1 + penalty, abs=1e-12)
    assert shaped[0, length - 1].item() == pytest.approx(1 + penalty, abs=1e-12)  # on the last token


def test_soft_overlong_with_dapos_own_numbers() -> None:
    """16384 expected, 4096 of cache, 20480 at most: half the cache costs a half."""
    mask_NT = torch.ones(1, 16384 + 2048, dtype=torch.bool)
    shaped = SoftOverlong()(torch.zeros(mask_NT.shape), context(mask_NT, max_length=20480))
    assert shaped.sum().item() == pytest.approx(-0.5)


def test_soft_overlong_weight_own_length_and_holes() -> None:
    """Own Lmax 5, Lcache 5 * 0.4 = 2; three tokens at the knee, four half, the hole not counted; weight 1/2."""
    mask_NT = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 1, 1]], dtype=torch.bool)
    part = SoftOverlong(cache=0.4, weight=0.5, max_length=5)
    shaped = part(torch.zeros(2, 5), context(mask_NT, max_length=1000))
    assert shaped.tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, pytest.approx(-0.25)]]


def test_kl_is_charged_token_by_token() -> None:
    """r - 1/2 (log pi - log ref): D = (-1 + 2, -3 + 1) = (1, -2), so -1/2 and 1 + 1. Outside the mask nothing."""
    mask_NT = torch.tensor([[True, True, False]])
    where = context(mask_NT, torch.tensor([[-1.0, -3.0, math.nan]]), torch.tensor([[-2.0, -1.0, math.inf]]))
    shaped = KLInReward(coef=0.5)(torch.tensor([[0.0, 1.0, 0.0]]), where)
    assert shaped.tolist() == [[-0.5, 2.0, 0.0]]


def test_kl_without_reference_says_so() -> None:
    assert KLInReward().needs == {"logp", "ref_logp"}
    with pytest.raises(ValueError, match="shape 'kl' needs ref_logp_NT"):
        KLInReward()(torch.zeros(1, 1), KLInReward().sees(context(torch.ones(1, 1, dtype=torch.bool))))


@pytest.mark.parametrize(
    ("kl", "beta"),
    [
        (6.0, 0.5),  # on target
        (6.6, 0.5 * (1 + 0.1 * 0.1)),  # 10 % above: 0.1 * 0.1
        (5.4, 0.5 * (1 - 0.1 * 0.1)),
        (60.0, 0.5 * (1 + 0.1 * 0.2)),  # far above: the error is clipped at 0.2
        (-6.0, 0.5 * (1 - 0.1 * 0.2)),
    ],
)
def test_adaptive_coefficient(kl: float, beta: float) -> None:
    """Two responses of two tokens; the mean of their summed log-ratios is `kl`, here kl - 1 and kl + 1."""
    mask_NT = torch.ones(2, 2, dtype=torch.bool)
    logp_NT = torch.tensor([[kl - 1, 0], [kl / 2, kl / 2 + 1]], dtype=torch.float64)
    part = KLInReward(coef=0.5, target=6)
    where = context(mask_NT, logp_NT, torch.zeros(2, 2).double())
    assert part.next_state(0.5, where) == pytest.approx(beta, rel=1e-12)


def test_state_is_carried_and_used() -> None:
    """beta 1/2 at first, then what the step before left. A response without a token is not in the mean."""
    mask_NT = torch.tensor([[True], [False]])
    where = context(mask_NT, torch.tensor([[12.0], [99.0]]), torch.zeros(2, 1))
    row = get("ppo").but(shape=(SoftOverlong(), KLInReward(coef=0.5, target=6)))
    where = replace(where, reward_NT=torch.tensor([[1.0], [0.0]]))
    assert row.initial_states() == {"shape.kl": 0.5}
    assert shape_reward(row.shape, where).reward_NT.tolist() == [[1 - 0.5 * 12], [0]]
    states = row.next_states(where)
    assert states == {"shape.kl": pytest.approx(0.51)}
    later = row.at(states)
    assert shape_reward(later.shape, where).reward_NT[0, 0].item() == pytest.approx(1 - 0.51 * 12)
    assert later.next_states(where)["shape.kl"] == pytest.approx(0.51 * 1.02)


def test_fixed_coefficient_stays() -> None:
    where = context(torch.ones(1, 1, dtype=torch.bool), torch.tensor([[9.0]]), torch.zeros(1, 1))
    assert KLInReward(coef=0.3).next_state(0.3, where) == 0.3


def test_nothing_seen_nothing_learned() -> None:
    where = context(torch.zeros(1, 1, dtype=torch.bool), torch.tensor([[9.0]]), torch.zeros(1, 1))
    assert KLInReward(coef=0.3, target=6).next_state(0.3, where) == 0.3


def test_the_reward_itself_is_left_alone() -> None:
    reward_NT, mask_NT = torch.ones(1, 10), torch.ones(1, 10, dtype=torch.bool)
    shape_reward((SoftOverlong(),), replace(context(mask_NT), reward_NT=reward_NT))
    assert (reward_NT == 1).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"rate": 0.2}, "rate does nothing without a target"), ({"coef": 0, "target": 6}, "a coef of 0 stays 0")],
)
def test_kl_refuses_settings_that_do_nothing(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLInReward(**fields)


@pytest.mark.parametrize(("lmax", "longest", "idle"), [(40, 33, False), (40, 32, True), (None, 1, False)])
def test_a_punishment_that_no_response_reaches_is_refused(lmax: int | None, longest: int, idle: bool) -> None:
    """It begins beyond 0.8 of Lmax, 40: 32 tokens. Without an Lmax it is the run's, and the longest is punished."""
    settings, shape = RunSettings(longest, 8), SoftOverlong(max_length=lmax)
    if not idle:
        assert shape.check(settings) == ()
        return
    with pytest.raises(ValueError, match="punishes beyond 32 tokens, which no response of at most 32 has"):
        shape.check(settings)
