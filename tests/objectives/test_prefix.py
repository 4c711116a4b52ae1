"""CTPO: the ratio of the prefix and the clip that widens with the position, against the authors' loop."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from objectives import get
from objectives.conformance import world as zoo
from objectives.parts import PositionClip, Prefix


def authors_slopes(log_ratios: list[float], a: float, weight: float) -> list[float]:
    """horizon-llm/CTPO core_algos.py, cum-token-cumprod-la: -d loss / d log pi_t of each token.

    log c_t = sum of the log-ratios up to t; edges times t^0.5; min, and for A < 0 dual clip at exp(0.05 t^0.5).
    """
    slopes = []
    for t in range(len(log_ratios)):
        c, scale = sum(log_ratios[: t + 1]), math.sqrt(t + 1)
        r = math.exp(c)
        clipped = math.exp(min(max(c, -0.025 * scale), 0.05 * scale))
        alive = r * a <= clipped * a  # the unclipped one is the smaller, or they are equal
        if a < 0 and min(r * a, clipped * a) < math.exp(0.05 * scale) * a:
            alive = False  # beyond the dual clip the objective is constant
        slopes.append(r * a * weight * alive)
    return slopes


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_each_tokens_gradient_is_the_authors(factor: float) -> None:
    w = zoo.world()
    w = replace(w, logp_NT=w.old_logp_NT + factor * (w.logp_NT - w.old_logp_NT))
    out, batch = zoo.step(get("ctpo"), w)
    (gradient,) = torch.autograd.grad(get("ctpo").loss(out, batch), out.logp_BT)
    dead = alive = 0
    for i, mask_T in enumerate(w.mask_NT):
        a, weight = batch.advantage_BT[i, 0].item(), batch.weight_BT[i, 0].item()
        expected = authors_slopes((w.logp_NT - w.old_logp_NT)[i, mask_T].tolist(), a, weight)
        assert (-gradient[i, mask_T]).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-14)
        dead += sum(x == 0 for x in expected) if a else 0
        alive += sum(x != 0 for x in expected)
    assert alive and dead


def test_the_prefix_ratio_is_a_product_up_to_the_token() -> None:
    """log-ratios 0.3, 0, -0.6: 0.3, 0.3, -0.3; a token outside the mask counts for nothing. Own gradient, 1."""
    old_BT = torch.tensor([[-1.0, 7.0, -1.0, -1.0]]).double()
    new_BT = torch.tensor([[-0.7, 2.0, -1.0, -1.6]]).double().requires_grad_()
    mask_BT = torch.tensor([[True, False, True, True]])
    found = Prefix()(new_BT, old_BT, mask_BT)
    assert found[0].tolist() == pytest.approx([0.3, 0, 0.3, -0.3])
    (slope,) = torch.autograd.grad(found[0, 3], new_BT)
    assert slope[0].tolist() == [0, 0, 0, 1]


def test_it_corrects_the_prefix_exactly_and_not_what_comes_after() -> None:
    """Two tokens of two letters, the second's chances depend on the first. The mean over old of c_t grad log pi_t R has
    the second token's gradient exactly; the token ratio leaves out that first tokens were drawn from old. What comes
    after the first token is still drawn from old: there both have the same bias."""
    z = torch.tensor([0.7, -0.4, 1.1], dtype=torch.float64, requires_grad=True)  # of a; of b after a; of b after not-a
    old = torch.tensor([-0.3, 0.5, -0.2], dtype=torch.float64)

    def logp(x: torch.Tensor) -> torch.Tensor:
        """Log-probs [4, 2] of both tokens of the four responses."""
        first = torch.stack([x[0], -x[0] * 0]).log_softmax(0)
        second = [torch.stack([x[i], -x[i] * 0]).log_softmax(0) for i in (1, 2)]
        return torch.stack([torch.stack([first[i], second[i][j]]) for i in (0, 1) for j in (0, 1)])

    reward = torch.tensor([1.0, 0.2, 0.0, 0.6], dtype=torch.float64)
    (exact,) = torch.autograd.grad((logp(z).sum(1).exp() * reward).sum(), z)
    mask, chance = torch.ones(4, 2, dtype=torch.bool), logp(old).sum(1).exp()
    gradients = {}
    for kind in ("prefix", "token"):
        objective = get(f"rgra[ratio={kind},kl=none]")
        r = objective.ratio(logp(z), logp(old), mask).exp()
        (gradients[kind],) = torch.autograd.grad((r * (chance * reward)[:, None]).sum(), z)
    torch.testing.assert_close(gradients["prefix"][1:], exact[1:], rtol=1e-12, atol=1e-15)
    assert (gradients["token"] - exact)[1:].abs().max() > 0.01
    assert gradients["prefix"][0] == gradients["token"][0] != exact[0]


def test_edges_grow_with_the_root_of_the_position() -> None:
    """At t = 4 the edges are e^-0.05 and e^0.1: 0.08 is inside and still has a gradient, at t = 1 it is beyond 0.05."""
    leaf = torch.tensor([[0.08, 0.0, 0.0, 0.08]], dtype=torch.float64, requires_grad=True)
    x = PositionClip().in_rows(leaf, torch.ones(1, 4).double(), torch.ones(1, 4, dtype=torch.bool))
    (slope,) = torch.autograd.grad(x.sum(), leaf)
    assert slope[0].tolist() == pytest.approx([0, 1, 1, math.exp(0.08)])
