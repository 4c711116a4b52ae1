"""Sampler mismatch: weights by hand, and what they do to an expectation that can be enumerated."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from objectives import PolicyOutput, TokenBatch, get, update_metrics
from objectives.conformance import world as zoo
from objectives.parts import Correction, SequenceCorrection, TokenCorrection

MASK = torch.tensor([[True, True, False], [True, True, True]])
OLD = torch.tensor([[2.0, 3.0, 7.0], [1.0, 1.0, 1.0]], dtype=torch.float64).log()
SAMPLER = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 4.0]], dtype=torch.float64).log()
"""Quotients (2, 3, -) and (1/2, 1, 1/4); of the responses 6 and 1/8."""


@pytest.mark.parametrize(
    ("part", "weights"),
    [
        (TokenCorrection(cap=None), [2, 3, 0.5, 1, 0.25]),
        (TokenCorrection(cap=2.5), [2, 2.5, 0.5, 1, 0.25]),
        (TokenCorrection(cap=2.5, beyond="mask"), [2, 0, 0.5, 1, 0.25]),
        (SequenceCorrection(cap=None), [6, 6, 0.125, 0.125, 0.125]),
        (SequenceCorrection(cap=2.5), [2.5, 2.5, 0.125, 0.125, 0.125]),
        (SequenceCorrection(cap=2.5, beyond="mask"), [0, 0, 0.125, 0.125, 0.125]),
    ],
    ids=str,
)
def test_weights_by_hand(part: Correction, weights: list[float]) -> None:
    assert part(OLD, SAMPLER, MASK)[MASK].tolist() == pytest.approx(weights, rel=1e-14)


@pytest.mark.parametrize("beyond", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("name", ["grpo", "gspo", "ppo", "reinforce"])
def test_a_sampler_that_is_the_trainer_needs_no_correction(name: str, level: str, beyond: str) -> None:
    """The weight is exactly 1, also at a cap of 1: the loss and its gradient are bitwise those without."""
    w = zoo.world()
    agreed = dataclasses.replace(w, sampler_logp_NT=w.old_logp_NT)
    corrected = get(f"{name}[correction={level},correction.cap=1,correction.beyond={beyond}]")
    loss, gradients = zoo.loss_and_gradients(corrected, *zoo.step(corrected, agreed))
    plain, plain_gradients = zoo.loss_and_gradients(get(name), *zoo.step(get(name), agreed))
    assert torch.equal(loss, plain)
    assert all(torch.equal(gradients[key], plain_gradients[key]) for key in plain_gradients)


def expected_gradient(t: zoo.Tabular, sampler_SV: Tensor, change: str) -> Tensor:
    """E_{y ~ sampler}[gradient of the corrected surrogate], over all responses; the advantage is the return."""
    sampler_RT = torch.where(t.mask_RT, sampler_SV.log_softmax(dim=1)[t.state_RT, t.token_RT], 0)
    batch = TokenBatch(
        mask_BT=t.mask_RT,
        weight_BT=sampler_RT.sum(dim=1).exp()[:, None] * t.mask_RT,
        advantage_BT=t.reward_R[:, None].expand_as(t.mask_RT).contiguous(),
        old_logp_BT=t.logp_RT.detach(),
        sampler_logp_BT=sampler_RT,
    )
    objective = get(f"reinforce[{change}]")
    (gradient,) = torch.autograd.grad(objective.terms(PolicyOutput(t.logp_RT), batch)["surrogate"], t.logits_SV)
    return -gradient


def error(change: str) -> float:
    """Relative error of the expected gradient when the sampler's logits are off by noise of 0.3."""
    t = zoo.tabular()
    noise_SV = torch.randn(t.logits_SV.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = expected_gradient(t, (t.logits_SV + 0.3 * noise_SV).detach(), change)
    return ((found - t.true_gradient()).norm() / t.true_gradient().norm()).item()


def test_the_full_weight_of_responses_restores_the_trainers_expectation() -> None:
    """sum_y sampler(y) old(y)/sampler(y) f(y) = sum_y old(y) f(y), to rounding. Nothing else does."""
    assert error("correction=sequence,correction.cap=none") < 1e-12
    assert error("correction=none") > 0.1
    for change in ("correction=token,correction.cap=none", "correction=sequence,correction.cap=1"):
        assert 0.01 < error(change) < error("correction=none")
    assert error("correction=sequence,correction.cap=1e6") < 1e-12  # a cap that nothing reaches
    assert error("correction=sequence,correction.cap=1,correction.beyond=mask") > 0.1


def test_the_weight_multiplies_the_surrogate_alone() -> None:
    """KL, value and entropy terms of the same tokens stay as they are."""
    w = zoo.world()
    name = "ppo[kl=k3,entropy=bonus]"
    plain, corrected = get(name), get(name).but(correction="token")
    before = plain.terms(*zoo.step(plain, w))
    after = corrected.terms(*zoo.step(corrected, w))
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"surrogate"}
    out, batch = zoo.step(corrected, w)
    weight_BT = TokenCorrection()(w.old_logp_NT, w.sampler_logp_NT, w.mask_NT)
    by_hand = -(plain.per_token(plain.log_ratio(out, batch), batch) * weight_BT * batch.weight_BT).sum()
    torch.testing.assert_close(after["surrogate"], by_hand, rtol=1e-13, atol=0)


def test_metrics_say_how_much_is_corrected() -> None:
    """Quotients (2, 3) and (1/2, 1, 1/4), cap 2.5: mean (2 + 2.5 + .5 + 1 + .25) / 5 = 1.25, one of five capped."""
    zero = torch.zeros(2, 3, dtype=torch.float64)
    batch = TokenBatch(MASK, zero, zero, OLD, sampler_logp_BT=SAMPLER)
    corrected = update_metrics(get("gspo[correction=token,correction.cap=2.5]"), PolicyOutput(OLD), batch)
    assert (corrected["correction_mean"], corrected["correction_capped"]) == pytest.approx((1.25, 0.2), rel=1e-14)
    plain = update_metrics(get("gspo"), PolicyOutput(OLD), batch)
    assert math.isnan(plain["correction_mean"]) and math.isnan(plain["correction_capped"])


def test_a_cap_can_be_switched_off_by_name_and_reads_back() -> None:
    objective = get("gspo[correction=sequence,correction.cap=none]")
    assert objective.correction == SequenceCorrection(cap=None)
    assert get(objective.name) == objective
    with pytest.raises(ValueError, match="beyond does nothing without a cap: set cap, or leave it out"):
        get("gspo[correction=token,correction.cap=none,correction.beyond=mask]")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TokenCorrection(cap=0.5)
