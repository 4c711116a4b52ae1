"""ReMax against its equation, written as plain loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from objectives import get
from objectives.conformance import world as zoo


@pytest.mark.parametrize("seed", range(3))
def test_remax_is_its_papers_equation(seed: int) -> None:
    """grad of -1/N sum_i (r_i - r of the greedy response to the same prompt) sum_t log pi_it"""
    w = zoo.world(seed)
    logp_NT = zoo.leaf(w.logp_NT)
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(16):
        advantage = w.reward_N[i].item() - w.greedy_N[i].item()
        for t in range(int(w.mask_NT[i].sum())):
            loss = loss - advantage * logp_NT[i, t] / 16
    loss.backward()
    _, gradients = zoo.loss_and_gradients(get("remax"), *zoo.step(get("remax"), w))
    torch.testing.assert_close(gradients["logp_BT"], logp_NT.grad, rtol=1e-12, atol=1e-14)
    # Prompt 0 has a greedy reward of 1 and its wrong responses count; prompt 2 is all right and so silent.
    assert gradients["logp_BT"][1].any() and not gradients["logp_BT"][0].any() and not gradients["logp_BT"][8:12].any()


def test_where_greedy_earns_nothing_nothing_is_subtracted() -> None:
    w = dataclasses.replace(zoo.world(), greedy_N=torch.zeros(16, dtype=torch.float64))
    with_greedy, without = (
        zoo.loss_and_gradients(get(name), *zoo.step(get(name), w))
        for name in ("remax", "remax[advantage.baseline=none]")
    )
    torch.testing.assert_close(with_greedy, without, rtol=0, atol=0)


def test_the_row_is_reinforce_with_another_baseline() -> None:
    assert get("reinforce[advantage.baseline=greedy]").but(name="x") == get("remax").but(name="x")
    assert get("remax").needs == {"greedy"}
