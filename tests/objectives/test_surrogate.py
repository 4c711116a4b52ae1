"""Surrogates: the table of live and dead cells, and what the clip fractions count."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from objectives import get, update_metrics
from objectives.conformance import world as zoo
from objectives.parts import Clip, ClippedWeight, GeometricMean, Linear, SoftGate, Surrogate


def value_and_slope(surrogate: Surrogate, ratio: float, advantage: float) -> tuple[float, float]:
    """The surrogate and its derivative by log pi at one token, where log-ratio = log(ratio)."""
    log_ratio = torch.tensor(math.log(ratio), dtype=torch.float64, requires_grad=True)
    value = surrogate(log_ratio, torch.tensor(advantage, dtype=torch.float64))
    value.backward()
    assert log_ratio.grad is not None
    return value.item(), log_ratio.grad.item()


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "slope"),
    [
        # clip(0.2, 0.28): the gradient is r A, but for the two dead cells
        (2.0, 0.5, 1.0, 1.0),  # good, grown unlikely: alive, a good token is never clipped below
        (2.0, 0.9, 1.8, 1.8),
        (2.0, 1.0, 2.0, 2.0),
        (2.0, 1.25, 2.5, 2.5),  # clip-higher leaves room up to 1.28
        (2.0, 1.5, 2.56, 0.0),  # dead: 1.28 * 2
        (-2.0, 0.5, -1.6, 0.0),  # dead: 0.8 * -2
        (-2.0, 0.9, -1.8, -1.8),
        (-2.0, 1.0, -2.0, -2.0),
        (-2.0, 1.25, -2.5, -2.5),
        (-2.0, 1.5, -3.0, -3.0),  # bad, grown likely: alive, a bad token is never clipped above
        (-2.0, 50.0, -100.0, -100.0),
        (0.0, 1.5, 0.0, 0.0),
        (0.0, 0.5, 0.0, 0.0),
    ],
)
def test_clip_table(advantage: float, ratio: float, value: float, slope: float) -> None:
    assert value_and_slope(Clip(low=0.2, high=0.28), ratio, advantage) == pytest.approx((value, slope), rel=1e-12)


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "slope"),
    [
        (-2.0, 2.9, -5.8, -5.8),  # below c = 3: as before
        (-2.0, 3.1, -6.0, 0.0),  # beyond: max(-6.2, 3 * -2), a third dead cell
        (-2.0, 50.0, -6.0, 0.0),
        (-2.0, 0.5, -1.6, 0.0),
        (2.0, 50.0, 2.4, 0.0),  # positive advantages do not know c
        (2.0, 0.5, 1.0, 1.0),
    ],
)
def test_dual_clip_table(advantage: float, ratio: float, value: float, slope: float) -> None:
    assert value_and_slope(Clip(dual=3), ratio, advantage) == pytest.approx((value, slope), rel=1e-12)


@pytest.mark.parametrize("advantage", [1.0, -2.0])
@pytest.mark.parametrize(("ratio", "weight"), [(0.1, 0.5), (0.5, 0.5), (0.9, 0.9), (2.0, 2.0), (4.9, 4.9), (50.0, 5.0)])
def test_clipped_weight_keeps_every_gradient(advantage: float, ratio: float, weight: float) -> None:
    """CISPO: the slope is clip(r, floor, cap) A, never 0; the value is the same number."""
    surrogate = ClippedWeight(floor=0.5, cap=5)
    assert value_and_slope(surrogate, ratio, advantage) == pytest.approx((weight * advantage, weight * advantage))


def test_linear_is_the_importance_weighted_advantage() -> None:
    assert value_and_slope(Linear(), 3.0, -2.0) == pytest.approx((-6, -6), rel=1e-12)


@pytest.mark.parametrize(
    "surrogate", [Linear(), Clip(), Clip(low=0, high=0), Clip(dual=1.5), ClippedWeight(), GeometricMean()], ids=str
)
def test_at_ratio_one_every_slope_is_the_advantage(surrogate: Surrogate) -> None:
    """Exactly, also where the clip's edge is at 1 and min and clip are tied."""
    for advantage in (1.7, -0.3):
        assert value_and_slope(surrogate, 1.0, advantage) == (advantage, advantage)


@pytest.mark.parametrize("surrogate", [Linear(), Clip(), Clip(dual=3), ClippedWeight(), GeometricMean()], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overflow(surrogate: Surrogate, dtype: torch.dtype) -> None:
    """e^1000 is inf and inf * 0 is nan; the bound at e^20 keeps both out."""
    log_ratio = torch.tensor([1000.0, -1000.0, 88.8, 1000.0], dtype=dtype, requires_grad=True)
    value = surrogate(log_ratio, torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=dtype))
    value.sum().backward()
    assert log_ratio.grad is not None
    assert value.isfinite().all() and log_ratio.grad.isfinite().all()


@settings(deadline=None, max_examples=50, derandomize=True)
@given(ratio=st.floats(0.05, 20), advantage=st.floats(-3, 3), low=st.floats(0, 0.9), high=st.floats(0, 2))
def test_clip_is_a_lower_bound_that_touches_inside(ratio: float, advantage: float, low: float, high: float) -> None:
    """min(..) never promises more than r A, and is r A wherever 1 - low < r < 1 + high."""
    clipped, _ = value_and_slope(Clip(low=low, high=high), ratio, advantage)
    linear, _ = value_and_slope(Linear(), ratio, advantage)
    assert clipped <= linear + 1e-12
    if 1 - low < ratio < 1 + high:
        assert clipped == pytest.approx(linear, rel=1e-12)


@pytest.mark.parametrize("name", ["ppo", "grpo", "dapo", "gspo", "grpo[surrogate.dual=1.3]"])
def test_clip_fractions_count_exactly_the_dead_cells(name: str) -> None:
    """Counted one token at a time from the table: A > 0 beyond 1 + high, A < 0 beyond 1 - low, A < 0 beyond dual."""
    objective = get(name)
    out, batch = zoo.step(objective, zoo.world())
    surrogate = objective.surrogate
    assert isinstance(surrogate, Clip)
    log_ratio_BT = objective.log_ratio(out, batch)
    below = above = tokens = 0
    for r, a, m in zip(
        log_ratio_BT.exp().flatten(), batch.advantage_BT.flatten(), batch.mask_BT.flatten(), strict=True
    ):
        if m:
            tokens += 1
            below += bool(a < 0 and r < 1 - surrogate.low)
            above += bool(a > 0 and r > 1 + surrogate.high)
            above += bool(a < 0 and surrogate.dual is not None and r > surrogate.dual)
    assert below > 0 and above > 0
    metrics = update_metrics(objective, out, batch)
    assert metrics["clip_low"] == pytest.approx(below / tokens, rel=1e-12)
    assert metrics["clip_high"] == pytest.approx(above / tokens, rel=1e-12)
    assert metrics["clip_fraction"] == pytest.approx((below + above) / tokens, rel=1e-12)


@pytest.mark.parametrize("name", ["reinforce", "grpo[surrogate=linear]", "grpo[surrogate=clipped_weight]"])
def test_without_a_clip_nothing_is_counted(name: str) -> None:
    """CISPO bounds weights, but no token loses its gradient."""
    objective = get(name)
    out, batch = zoo.step(objective, zoo.world())
    far = dataclasses.replace(out, logp_BT=zoo.leaf(torch.where(batch.mask_BT, out.logp_BT + 3, 0)))
    assert update_metrics(objective, far, batch)["clip_fraction"] == 0


def test_tokens_without_advantage_are_not_clipped() -> None:
    """They have no gradient either, but not because of a clip."""
    objective = get("grpo")
    out, batch = zoo.step(objective, zoo.world())
    silent = dataclasses.replace(batch, advantage_BT=torch.zeros_like(batch.advantage_BT))
    assert update_metrics(objective, out, silent)["clip_fraction"] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clip(low=1), "less than 1"),
        (lambda: Clip(low=-0.1), "greater than or equal to 0"),
        (lambda: Clip(dual=1), "greater than 1"),
        (lambda: ClippedWeight(floor=5, cap=5), "floor 5 must be below cap 5"),
    ],
)
def test_bounds_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "slope"),
    [
        (2.0, 0.1, 0.2, 0.2),  # good, grown unlikely: alive
        (2.0, 1.4, 2.8, 2.8),  # below e^.4 = 1.4918
        (2.0, 1.6, 2.9836493952825407, 0.0),  # dead: e^.4 * 2
        (-2.0, 0.7, -1.4, -1.4),  # above e^-.4 = 0.6703
        (-2.0, 0.6, -1.3406400920712787, 0.0),  # dead: e^-.4 * -2
        (-2.0, 9.0, -18.0, -18.0),  # bad, grown likely: alive
        (0.0, 9.0, 0.0, 0.0),
    ],
)
def test_the_geometric_mean_of_one_token_is_a_clip(advantage: float, ratio: float, value: float, slope: float) -> None:
    """Of 1 - e^-.4 below and e^.4 - 1 above."""
    assert value_and_slope(GeometricMean(), ratio, advantage) == pytest.approx((value, slope), rel=1e-12)
    clip = Clip(low=1 - math.exp(-0.4), high=math.exp(0.4) - 1)
    assert value_and_slope(clip, ratio, advantage) == pytest.approx((value, slope), rel=1e-12)


def test_the_geometric_mean_by_hand() -> None:
    """Log-ratios (.1, .7, -.2), A = 2: the second is held at .4, mean (.1 + .4 - .2) / 3 = .1, value 2 e^.1 everywhere;
    the slopes are 2 e^.1 at the two that are not clipped. Then (-.1, -.9, masked), A = -1: mean (-.1 - .4) / 2."""
    log_ratio_BT = torch.tensor([[0.1, 0.7, -0.2], [-0.1, -0.9, 0.0]], dtype=torch.float64, requires_grad=True)
    advantage_BT = torch.tensor([[2.0], [-1.0]], dtype=torch.float64).expand(2, 3)
    mask_BT = torch.tensor([[True, True, True], [True, True, False]])
    value_BT = GeometricMean().in_rows(log_ratio_BT, advantage_BT, mask_BT)
    (slope_BT,) = torch.autograd.grad(value_BT[mask_BT].sum(), log_ratio_BT)
    up, down = 2 * math.exp(0.1), -math.exp(-0.25)
    assert value_BT[mask_BT].tolist() == pytest.approx([up, up, up, down, down], rel=1e-14)
    assert slope_BT[mask_BT].tolist() == pytest.approx([up, 0, up, down, 0], rel=1e-14)


@pytest.mark.parametrize("surrogate", [Linear(), Clip(), ClippedWeight(), SoftGate()], ids=str)
def test_other_tokens_stand_alone(surrogate: Surrogate) -> None:
    _, batch = zoo.step(get("grpo"), zoo.world())
    log_ratio_BT = 0.3 * batch.old_logp_BT
    whole = surrogate.in_rows(log_ratio_BT, batch.advantage_BT, batch.mask_BT)
    assert torch.equal(whole, surrogate(log_ratio_BT, batch.advantage_BT))
