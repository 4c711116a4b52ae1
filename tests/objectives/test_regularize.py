"""KL estimators by exact enumeration over a softmax; the critic's loss; the entropy bonus."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from objectives.parts import K1, K2, K3, KL, ClippedValueLoss, EntropyBonus, PlainValueLoss, ValueLoss

PI = torch.tensor([0.7, -0.4, 0.1, 1.3, -1.1], dtype=torch.float64)
REF = torch.tensor([0.2, 0.3, -0.6, 0.9, 0.4], dtype=torch.float64)
CLOSE = {"rtol": 1e-12, "atol": 1e-15}
K1_ST, K3_ST = K1(coef=1, straight_through=True), K3(coef=1, straight_through=True)


def expectation(part: KL) -> tuple[Tensor, Tensor]:
    """E over tokens drawn from pi of the cost, and of the cost's gradient by pi's logits, as a loss would give it."""
    logits_V = PI.clone().requires_grad_()
    logp_V = logits_V.log_softmax(0)
    cost = (logp_V.exp().detach() * part(logp_V, REF.log_softmax(0))).sum()
    (gradient,) = torch.autograd.grad(cost, logits_V)
    return cost.detach(), gradient


def divergence(forward: bool) -> tuple[Tensor, Tensor]:
    """KL(ref || pi) if forward, else KL(pi || ref), and its true gradient."""
    logits_V = PI.clone().requires_grad_()
    logp_V, ref_V = logits_V.log_softmax(0), REF.log_softmax(0)
    kl = (ref_V.exp() * (ref_V - logp_V)).sum() if forward else (logp_V.exp() * (logp_V - ref_V)).sum()
    (gradient,) = torch.autograd.grad(kl, logits_V)
    return kl.detach(), gradient


REVERSE, REVERSE_GRADIENT = divergence(forward=False)
FORWARD, FORWARD_GRADIENT = divergence(forward=True)


@pytest.mark.parametrize("part", [K1(coef=1), K3(coef=1), K1_ST, K3_ST], ids=str)
def test_k1_and_k3_are_unbiased_in_value(part: KL) -> None:
    torch.testing.assert_close(expectation(part)[0], REVERSE, **CLOSE)


def test_k2_is_biased_in_value_by_the_third_moment() -> None:
    """E[D^2]/2 is not E[D]; here by more than a tenth."""
    value = expectation(K2(coef=1))[0]
    log_ratio_V = PI.log_softmax(0) - REF.log_softmax(0)
    torch.testing.assert_close(value, (PI.softmax(0) * log_ratio_V.square()).sum() / 2, **CLOSE)
    assert abs(value - REVERSE) > 0.1 * REVERSE


def test_k1_as_a_loss_has_no_gradient_in_expectation() -> None:
    """E[grad log pi] = 0: at single tokens it is not, so what is left is noise."""
    torch.testing.assert_close(expectation(K1(coef=1))[1], torch.zeros(5).double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("part", [K2(coef=1), K1_ST, K3_ST], ids=str)
def test_k2_and_the_straight_through_forms_follow_the_reverse_kl(part: KL) -> None:
    """E[D grad log pi] = grad KL(pi || ref)."""
    torch.testing.assert_close(expectation(part)[1], REVERSE_GRADIENT, **CLOSE)


def test_k3_as_a_loss_follows_the_forward_kl() -> None:
    """E[(1 - ref/pi) grad log pi] = -sum ref grad log pi = grad KL(ref || pi), which is pi - ref by the logits."""
    gradient = expectation(K3(coef=1))[1]
    torch.testing.assert_close(gradient, FORWARD_GRADIENT, **CLOSE)
    torch.testing.assert_close(gradient, PI.softmax(0) - REF.softmax(0), **CLOSE)
    assert not torch.allclose(gradient, REVERSE_GRADIENT, rtol=0.1)


@pytest.mark.parametrize(
    ("part", "value", "slope"),
    [
        # D = log 2: pi twice the reference
        (K1(coef=0.5), 0.5 * math.log(2), 0.5),
        (K2(coef=0.5), 0.5 * math.log(2) ** 2 / 2, 0.5 * math.log(2)),
        (K3(coef=0.5), 0.5 * (0.5 - 1 + math.log(2)), 0.5 * (1 - 0.5)),
        (K1(coef=0.5, straight_through=True), 0.5 * math.log(2), 0.5 * math.log(2)),
        (K3(coef=0.5, straight_through=True), 0.5 * (0.5 - 1 + math.log(2)), 0.5 * math.log(2)),
    ],
    ids=str,
)
def test_one_token(part: KL, value: float, slope: float) -> None:
    logp = torch.tensor(math.log(0.6), dtype=torch.float64, requires_grad=True)
    cost = part(logp, torch.tensor(math.log(0.3), dtype=torch.float64))
    cost.backward()
    assert cost.item() == pytest.approx(value, rel=1e-12)
    assert logp.grad is not None
    assert logp.grad.item() == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("part", [K1(), K2(), K3(), K1_ST, K3_ST], ids=str)
def test_equal_policies_cost_nothing(part: KL) -> None:
    logp = torch.tensor([-0.1, -3.0, -40.0], requires_grad=True)
    cost = part(logp, logp.detach())
    assert (cost == 0).all()


@pytest.mark.parametrize("part", [K1(), K2(), K3(), K1_ST, K3_ST], ids=str)
@pytest.mark.parametrize("gap", [1e4, -1e4, 89.0, -89.0])
def test_overflow(part: KL, gap: float) -> None:
    """exp(-D) of a token that the policy all but forgot: D is held at -20, so the cost is e^20 and not inf."""
    logp = torch.tensor([gap], requires_grad=True)
    cost = part(logp, torch.zeros(1))
    cost.sum().backward()
    assert logp.grad is not None
    assert cost.isfinite().all() and logp.grad.isfinite().all()


def test_k3_is_accurate_near_zero_in_float32() -> None:
    """D = 1e-4: D^2/2 = 5e-9, which exp(-D) - 1 + D in single steps would lose (eps is 1e-7)."""
    cost = K3(coef=1)(torch.tensor([-1.0 + 1e-4]), torch.tensor([-1.0]))
    gap = (torch.tensor(-1.0 + 1e-4) - torch.tensor(-1.0)).double()
    assert cost.item() == pytest.approx((gap.square() / 2).item(), rel=1e-2)


@pytest.mark.parametrize(
    ("part", "value", "old", "target", "cost", "slope"),
    [
        (PlainValueLoss(coef=0.5), 3.0, 0.0, 1.0, 1.0, 1.0),  # 0.5 * 4 / 2; slope 0.5 * (3 - 1)
        (ClippedValueLoss(coef=1), 0.1, 0.0, 1.0, 0.405, -0.9),  # inside +-0.2: plain
        (ClippedValueLoss(coef=1), 0.5, 0.0, 1.0, 0.32, 0.0),  # ran ahead of 0.2 towards R: max picks (0.2 - 1)^2
        (ClippedValueLoss(coef=1), -0.5, 0.0, 1.0, 1.125, -1.5),  # ran away from R: the plain one is worse, alive
        (ClippedValueLoss(coef=1, range=1), 0.5, 0.0, 1.0, 0.125, -0.5),  # a wider range
        (ClippedValueLoss(coef=0.5), 2.0, 2.0, 1.0, 0.25, 0.5),  # at the old value: plain
    ],
)
def test_value_losses(part: ValueLoss, value: float, old: float, target: float, cost: float, slope: float) -> None:
    v = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    loss = part(v, torch.tensor(old).double(), torch.tensor(target).double())
    loss.backward()
    assert v.grad is not None
    assert (loss.item(), v.grad.item()) == pytest.approx((cost, slope), rel=1e-12)


def test_entropy_bonus_rewards_entropy() -> None:
    entropy = torch.tensor([2.0], requires_grad=True)
    cost = EntropyBonus(coef=0.1)(entropy)
    cost.sum().backward()
    assert cost.item() == pytest.approx(-0.2)
    assert entropy.grad is not None
    assert entropy.grad.item() == pytest.approx(-0.1)


def test_a_log_ratio_is_itself_up_to_20() -> None:
    """k2 = D^2 / 2: 15 gives 112.5, and 25 is taken for 20, which gives 200, on both sides."""
    gap = torch.tensor([15.0, -15.0, 25.0, -25.0], dtype=torch.float64)
    assert K2(coef=1)(gap, torch.zeros_like(gap)).tolist() == [112.5, 112.5, 200, 200]
