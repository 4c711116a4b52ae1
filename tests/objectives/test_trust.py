"""The penalty that holds a policy to the one that sampled."""

from __future__ import annotations

import math

import pytest
import torch

from advantages import RolloutView
from objectives import get
from objectives.conformance import world as zoo
from objectives.parts import OldKL


def test_by_hand() -> None:
    """rho = 2 and 1/2: 2 - 1 - log 2 and 1/2 - 1 + log 2, times 3; slopes 3 (rho - 1)."""
    old_logp_BT = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    logp_BT = zoo.leaf(old_logp_BT + torch.tensor([[2.0, 0.5]], dtype=torch.float64).log())
    cost_BT = OldKL(coef=3)(logp_BT, old_logp_BT)
    assert cost_BT.tolist() == [pytest.approx([3 * (1 - math.log(2)), 3 * (math.log(2) - 0.5)])]
    cost_BT.sum().backward()
    assert logp_BT.grad is not None
    assert logp_BT.grad.tolist() == [pytest.approx([3.0, -1.5])]


def test_its_expectation_and_its_gradient_are_those_of_the_divergence() -> None:
    """Over all five tokens with their probabilities under old: KL(old || pi), and its gradient in pi's logits."""
    generator = torch.Generator().manual_seed(0)
    old_V, logits_V = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    old_V, logits_V = old_V.log_softmax(0), logits_V.requires_grad_()
    logp_V = logits_V.log_softmax(0)
    divergence = (old_V.exp() * (old_V - logp_V)).sum()
    estimate = (old_V.exp() * OldKL()(logp_V[None], old_V[None])[0]).sum()
    assert estimate.item() == pytest.approx(divergence.item(), rel=1e-12)
    found, true = (torch.autograd.grad(x, logits_V, retain_graph=True)[0] for x in (estimate, divergence))
    torch.testing.assert_close(found, true, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("kl", "coef"), [(0.0, 2.0), (0.019, 2.0), (0.021, 4.0), (0.03, 4.0), (0.044, 4.0), (0.046, 8.0), (9.0, 8.0)]
)
def test_it_adapts_outside_a_band_around_the_target(kl: float, coef: float) -> None:
    """Target 0.03: halved below 0.02, doubled above 0.045."""
    # k3(D) = exp(-D) - 1 + D at new - old = -D; solved for the D >= 0 that has this divergence
    d = torch.tensor(kl + 1, dtype=torch.float64)
    for _ in range(60):  # Newton's method, from the right of a convex function's root
        d = d - (torch.expm1(-d) + d - kl) / -torch.expm1(-d)
    mask_NT, old_NT = torch.tensor([[True, False]]), torch.tensor([[-1.0, 9.0]]).double()
    view = RolloutView.of(old_NT, mask_NT, torch.zeros(1), logp_NT=old_NT, new_logp_NT=old_NT - d)
    assert OldKL(coef=4, target=0.03).next_state(4.0, view) == coef
    assert OldKL(coef=4).initial_state() is None and OldKL(coef=4).next_state(None, view) is None
    nothing = RolloutView.of(old_NT, ~mask_NT & False, torch.zeros(1), logp_NT=old_NT, new_logp_NT=old_NT)
    assert OldKL(coef=4, target=0.03).next_state(4.0, nothing) == 4


def test_an_objective_takes_the_coefficient_under_its_own_name() -> None:
    """coef 8 instead of 1: the cost is eight times as large; what it begins with stays 1."""
    held, first = get("ppo_kl").at({"kl": 8.0}), get("ppo_kl")
    assert (held.name, held.row(), held.state_metrics()["kl_coef"]) == ("ppo_kl", first.row(), 8)
    assert held.initial_states() == first.initial_states() == {"shape.kl": 0.05, "kl": 1.0}
    batch = zoo.step(first, zoo.world())
    assert held.terms(*batch)["kl"].item() == pytest.approx(8 * first.terms(*batch)["kl"].item(), rel=1e-12)
    for name in ("grpo", "gspo"):
        with pytest.raises(ValueError, match="has no part 'value' to carry a state"):
            get(name).at({"value": 8.0})


def test_it_needs_no_reference() -> None:
    assert OldKL().needs == set()
    assert OldKL(target=0.01).needs == {"logp", "new_logp"}
    assert get("ppo_kl[shape=none]").needs == {"value", "logp", "new_logp"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kl.correction=score", "there is nothing to correct"),
        ("kl.coef=0", "a coef of 0 stays 0 and cannot adapt"),
        ("kl.target=0", "greater than 0"),
    ],
)
def test_what_would_do_nothing_is_refused(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get(f"ppo_kl[{change}]")
