"""The likelihood of right responses: shares by hand, and what it adds to a loss."""

from __future__ import annotations

import pytest
import torch

from objectives import get
from objectives.conformance import world as zoo
from objectives.parts import PositiveLikelihood

MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
RIGHT = torch.tensor([1.0, 0.0, 1.0])


def test_by_hand() -> None:
    """Right responses have 2 + 3 tokens, so each has a share of 1/5; -log pi is 1, 2 and 3, 4, 5: 0.5 * 15 / 5."""
    part = PositiveLikelihood(coef=0.5)
    share_BT = part.weigh(RIGHT, MASK, torch.float64)
    assert share_BT.tolist() == [[0.2, 0.2, 0], [0, 0, 0], [0.2, 0.2, 0.2]]
    logp_BT = -torch.tensor([[1.0, 2, 0], [9, 0, 0], [3, 4, 5]], dtype=torch.float64)
    assert part(logp_BT, share_BT).sum().item() == pytest.approx(1.5)


@pytest.mark.parametrize("mask", [MASK, torch.zeros_like(MASK)])
def test_without_a_right_token_there_is_nothing(mask: torch.Tensor) -> None:
    wrong = torch.zeros(3) if mask.any() else RIGHT
    assert not PositiveLikelihood().weigh(wrong, mask).any()


def test_right_is_more_than_half() -> None:
    """Of partial marks 0.2, 0.5 and 0.6 the last alone is right: its three tokens share the weight."""
    share_BT = PositiveLikelihood().weigh(torch.tensor([0.2, 0.5, 0.6]), MASK, torch.float64)
    assert share_BT.tolist() == [[0, 0, 0], [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]


def test_on_right_responses_alone_it_is_sft() -> None:
    """sft is -log pi per token; with nothing else in the loss (advantage 0) and coefficient 1 the gradients are one."""
    w = zoo.world()
    right = w.rows(torch.tensor([8, 9, 10, 11]))  # a group that is all right: every advantage is 0
    objective = get("grpo[kl=none,imitation=positive_likelihood,imitation.coef=1]")
    _, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, right))
    on_policy = right.on_policy()
    _, expected = zoo.loss_and_gradients(get("sft"), *zoo.step(get("sft"), on_policy))
    torch.testing.assert_close(gradients, expected, rtol=1e-12, atol=1e-14)
    assert gradients["logp_BT"].abs().max() > 0.01


def test_it_is_added_to_the_loss_whatever_the_aggregate() -> None:
    """And the rows of a silent group are learned from, as they have a gradient now."""
    w = zoo.world()
    for name in ("grpo", "dr_grpo", "vapo[imitation=none]"):
        plain, more = get(name), get(name).but(imitation="positive_likelihood", name="more")
        out, batch = zoo.step(more, w)
        terms, without = more.terms(out, batch), plain.terms(*zoo.step(plain, w))
        right = [i for i in range(16) if w.accuracy_N[i] == 1]
        logp = torch.cat([w.logp_NT[i][w.mask_NT[i]] for i in right])
        assert terms.pop("imitation").item() == pytest.approx(-0.1 * logp.mean().item(), rel=1e-12)
        assert {k: x.item() for k, x in terms.items()} == {k: x.item() for k, x in without.items()}
        assert more.learns_from(batch).all()


def test_it_is_there_at_ratio_one_too() -> None:
    assert get("vapo").at_ratio_one().imitation == PositiveLikelihood(coef=0.1)
    assert get("vapo").at_ratio_one() != get("vapo[imitation=none]").at_ratio_one()
