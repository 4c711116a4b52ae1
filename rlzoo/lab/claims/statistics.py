"""Statistics of token advantages: the mean that each of them estimates.

GRPO: mean_i A_i / n_i          DAPO: sum_i A_i / sum_i n_i
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product

import torch
from torch import Tensor

from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.others import convolve
from rlzoo.lab.plots import Plot
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.world import make_world


@cache
def _law_of_sums(size: int) -> tuple[Tensor, Tensor, Tensor, Situation]:
    """Return the joint distribution of (right answers, total length) of a group: counts, totals, probabilities."""
    at = first_update(make_world(success=0.3))
    _, table = convolve(at.old_probability_R, at.accuracy_R.long(), at.space.length_R, size)
    return table.count_AC[:, 1].double(), torch.arange(table.law_AZ.shape[1]).double(), table.law_AZ, at


@claim(
    name="mean-of-sequence-means-is-unbiased",
    statement="mean_i A_i / n_i (GRPO's statistic) is unbiased for the mean over responses of their mean token "
    "advantage.",
    conditions="A_i = reward, random lengths, groups of 1, 2, 8",
    origin="lemma",
    source="derived; lecture notes on GRPO's statistic",
    how="A_i = reward; exact expectation over groups of 1, 2, 8 against E[A/n]",
    expected="supported",
)
def sequence_statistic() -> Finding:
    at = _law_of_sums(1)[3]
    p_R, rate_R = at.old_probability_R, at.reward_R / at.space.length_R
    target = (p_R * rate_R).sum().item()
    gaps = []
    for size in (1, 2, 8):
        _, table = convolve(p_R, torch.unique(rate_R, return_inverse=True)[1], at.space.length_R, size)
        value_C = torch.unique(rate_R)
        mean = (table.law_AZ.sum(dim=1) * (table.count_AC.double() @ value_C) / size).sum().item()
        gaps.append(abs(mean / target - 1))
    tokens = (p_R * at.reward_R).sum().item() / (p_R * at.space.length_R).sum().item()
    return Finding(
        max(gaps) < 1e-12,
        f"E = {target:.4f} at every group size (for the mean over all tokens, E[A]/E[n] = {tokens:.4f}, it is biased)",
        {"expectation": target, "all tokens": tokens},
    )


@claim(
    name="ratio-of-sums-is-unbiased",
    statement="sum_i A_i / sum_i n_i (DAPO's statistic) is unbiased for the mean token advantage over all tokens.",
    conditions="A_i = reward; groups of 1 to 32; lengths given, and lengths random",
    origin="often said",
    source="lecture notes on DAPO's statistic",
    how="A_i = reward; exact expectation over groups against E[A] / E[n], and given the lengths",
    expected="depends",
)
def token_statistic() -> Finding:
    biases: dict[int, float] = {}
    for size in (1, 2, 4, 8, 16, 32):
        right_A, total_Z, law_AZ, at = _law_of_sums(size)
        p_R = at.old_probability_R
        target = (p_R * at.reward_R).sum() / (p_R * at.space.length_R).sum()
        mean = (law_AZ * right_A[:, None] / total_Z.clamp(min=1)).sum()
        biases[size] = (mean / target - 1).item()
    given = max(abs(_given_lengths(n)) for n in product(range(1, 5), repeat=3))
    shown = ", ".join(f"G={size}: {b:+.2%}" for size, b in biases.items())
    random = max(map(abs, biases.values()))
    return Finding(
        (random < 1e-12) if (random < 1e-12) == (given < 1e-12) else "depends",
        f"given the lengths its bias is {given:.0e}; with random lengths, relative to E[A]/E[n], {shown}: it falls "
        f"like 1/G (bias times G at 32: {32 * biases[32]:+.3f}, at 16: {16 * biases[16]:+.3f}), so it is only "
        "consistent",
        {"random lengths": biases, "given lengths": given},
        plot=Plot("group size", list(biases), "relative bias", {"random lengths": list(biases.values())}, log_x=True),
    )


def _given_lengths(n: tuple[int, ...]) -> float:
    """Return E[sum A / sum n] minus the expected mean advantage over all tokens, if only the advantages are random.

    The advantages of response i are independent Bernoulli(0.1 i n_i) numbers.
    """
    chance = [0.1 * (i + 1) * n_i / 4 for i, n_i in enumerate(n)]
    found = 0.0
    for a in product((0, 1), repeat=len(n)):
        p = 1.0
        for a_i, c in zip(a, chance, strict=True):
            p *= c if a_i else 1 - c
        found += p * sum(a) / sum(n)
    return found - sum(n_i * (c / n_i) for n_i, c in zip(n, chance, strict=True)) / sum(n)


def small_groups() -> Iterator[tuple[list[Fraction], list[Fraction]]]:
    """Yield advantages and lengths of every group of three responses with A_i in 0, 1, 2 and n_i in 1 .. 4."""
    one = [(Fraction(a), Fraction(n)) for a in range(3) for n in range(1, 5)]
    for three in product(one, repeat=3):
        yield [a for a, _ in three], [n for _, n in three]


@claim(
    name="each-statistic-has-its-mean",
    statement="Given the lengths, sum A/sum n is the mean advantage over all tokens, and A_i/n_i that within response "
    "i; A_i over the mean length (DAPO's one token) is neither, unless n_i is the mean length or A_i is 0.",
    conditions="lengths given; groups of three responses",
    origin="lemma",
    source="derived",
    how="every group of three responses of 1 to 4 tokens with advantages 0, 1, 2, in fractions",
    expected="supported",
)
def four_statistics() -> Finding:
    wrong = groups = 0
    for a, n in small_groups():
        tokens = [a_i / n_i for a_i, n_i in zip(a, n, strict=True) for _ in range(int(n_i))]
        means = [a_i / n_i for a_i, n_i in zip(a, n, strict=True)]
        average = sum(n) / 3
        wrong += sum(a) / sum(n) != sum(tokens, Fraction(0)) / len(tokens)
        wrong += any(
            (a_i / average == mean) != (n_i == average or a_i == 0) for a_i, n_i, mean in zip(a, n, means, strict=True)
        )
        groups += 1
    return Finding(wrong == 0, f"exceptions in {groups} groups: {wrong}", {"groups": groups, "exceptions": wrong})


@claim(
    name="statistics-agree-without-correlation",
    statement="mean_i A_i/n_i and sum A/sum n are equal if and only if length and mean within the response are "
    "uncorrelated in the group; equal lengths or equal means are sufficient, not necessary.",
    conditions="lengths given; groups of three responses of 1 to 4 tokens, advantages 0, 1, 2",
    origin="lemma",
    source="derived; lecture notes name equal lengths and means as the condition",
    how="every group of three responses of 1 to 4 tokens with advantages 0, 1, 2, in fractions",
    expected="supported",
)
def sequence_against_token() -> Finding:
    agree = others = wrong = 0
    for a, n in small_groups():
        means = [a_i / n_i for a_i, n_i in zip(a, n, strict=True)]
        same = sum(means) / 3 == sum(a) / sum(n)
        covariance = sum(a) / 3 - sum(n) / 3 * sum(means) / 3  # mean of n_i m_i = A_i, less the product of means
        wrong += same != (covariance == 0)
        agree += same
        others += same and len(set(n)) > 1 and len(set(means)) > 1
    return Finding(
        wrong == 0,
        f"they are equal in {agree} of 1728 groups, {others} of them with unequal lengths and unequal means; "
        f"exceptions to 'if and only if uncorrelated': {wrong}",
        {"agree": agree, "neither equal": others, "exceptions": wrong},
        arithmetic=[
            "A_i = n_i m_i, so sum A / sum n - mean m = (mean n m - mean n mean m) / mean n = Cov(n, m) / mean n"
        ],
    )
