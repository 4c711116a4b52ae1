"""Dividing by the group's std weighs prompts by difficulty: E[grad] = w_G(p) grad p, exactly.

p is the chance that a response is right. w_G is found by running our `Group` on all 2^G outcomes of a group, and
compared with the closed form and with the table of three decimals.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from advantages import Group

DIFFICULTIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
TABLE = {
    2: (1, 1, 1, 1, 1, 1),
    4: (1.732, 1.727, 1.710, 1.690, 1.645, 1.616),
    8: (2.642, 2.609, 2.473, 2.328, 2.026, 1.856),
}


def weight(group: Group, samples: int, p: float) -> float:
    """E[1/G sum_i A_i d log P(y_i) / dp], which multiplies grad p in the expected gradient.

    d log p / dp = 1/p of a right response, d log(1-p) / dp = -1/(1-p) of a wrong one.
    """
    outcomes = torch.tensor(list(itertools.product((0.0, 1.0), repeat=samples)), dtype=torch.float64)
    reward_N1 = outcomes.flatten()[:, None]
    group_N = torch.arange(2**samples).repeat_interleave(samples)
    advantage = group(reward_N1, torch.ones_like(reward_N1, dtype=torch.bool), group_N).advantage_NT.view_as(outcomes)
    score = outcomes / p - (1 - outcomes) / (1 - p)
    right = outcomes.sum(dim=1)
    chance = p**right * (1 - p) ** (samples - right)
    return (chance * (advantage * score).mean(dim=1)).sum().item()


def closed_form(samples: int, p: float) -> float:
    """E over K ~ Bin(G-1, p) right ones among the others of sqrt((1-q)/q), q = (K+1)/G, and sqrt(q/(1-q)), q = K/G.

    The first is the advantage of a right response, the second minus that of a wrong one; 0 in a group without spread.
    """
    total = 0.0
    for k in range(samples):
        chance = math.comb(samples - 1, k) * p**k * (1 - p) ** (samples - 1 - k)
        if k < samples - 1:
            q = (k + 1) / samples
            total += chance * math.sqrt((1 - q) / q)
        if k > 0:
            q = k / samples
            total += chance * math.sqrt(q / (1 - q))
    return total


@pytest.mark.parametrize(("samples", "column"), list(itertools.product(TABLE, range(6))))
def test_population_std(samples: int, column: int) -> None:
    p = DIFFICULTIES[column]
    found = weight(Group(ddof=0, eps=0), samples, p)
    assert found == pytest.approx(closed_form(samples, p), rel=1e-12)
    assert found == pytest.approx(TABLE[samples][column], abs=5e-4)
    assert found <= math.sqrt(samples - 1) + 1e-12  # bounded, where the limit G -> inf is not


@pytest.mark.parametrize("samples", TABLE)
def test_unbiased_std_is_a_constant_factor(samples: int) -> None:
    """n - 1 for n multiplies every advantage by sqrt((G-1)/G): the difficulty weights keep their proportions."""
    for p in DIFFICULTIES:
        expected = closed_form(samples, p) * math.sqrt((samples - 1) / samples)
        assert weight(Group(ddof=1, eps=0), samples, p) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("samples", TABLE)
def test_without_std_every_prompt_weighs_the_same(samples: int) -> None:
    """(G-1)/G at every difficulty: the reward of response i is in its own mean."""
    for p in DIFFICULTIES:
        assert weight(Group(scale="none"), samples, p) == pytest.approx((samples - 1) / samples, rel=1e-12)
