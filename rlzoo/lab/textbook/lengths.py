"""Length normalizations, a token's share of credit, and new samples under old statistics."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch

from rlzoo.lab.claims.statistics import small_groups
from rlzoo.lab.plots import Plot
from rlzoo.lab.textbook.sheet import Cell, Sheet, sheet

Group = tuple[list[Fraction], list[Fraction]]
"""Advantages A_i and lengths n_i of a group's responses."""


def _means(group: Group) -> list[Fraction]:
    return [a / n for a, n in zip(*group, strict=True)]


def _average(x: list[Fraction]) -> Fraction:
    return sum(x, Fraction(0)) / len(x)


STATISTICS: dict[str, Callable[[Group], list[Fraction]]] = {
    "Y1 = A_i / n_i (one token, sequence mean)": _means,
    "Y2 = mean_i A_i / n_i (objective, sequence mean)": lambda g: [_average(_means(g))] * len(g[0]),
    "Y3 = A_i / mean n (one token, token mean)": lambda g: [a / _average(g[1]) for a in g[0]],
    "Y4 = sum A / sum n (objective, token mean)": lambda g: [sum(g[0], Fraction(0)) / sum(g[1])] * len(g[0]),
}
TARGETS: dict[str, Callable[[Group], list[Fraction]]] = {
    "mean within response i": _means,
    "mean over all tokens": lambda g: [sum(g[0], Fraction(0)) / sum(g[1])] * len(g[0]),
    "mean of the responses' means": lambda g: [_average(_means(g))] * len(g[0]),
}

Condition = tuple[str, Callable[[Group], bool]]
ALWAYS: Condition = ("always", lambda g: True)
EQUAL_MEANS: Condition = ("all A_i/n_i equal", lambda g: len(set(_means(g))) == 1)
UNCORRELATED: Condition = (
    "Cov(n, A/n) = 0",
    lambda g: _average(g[0]) == _average(g[1]) * _average(_means(g)),
)
AVERAGE_OR_ZERO: Condition = (
    "each n_i = mean n or A_i = 0",
    lambda g: all(n == _average(g[1]) or a == 0 for a, n in zip(*g, strict=True)),
)
EQUAL_SUMS: Condition = ("all A_i equal", lambda g: len(set(g[0])) == 1)
EQUAL_SUMS_AND_LENGTHS: Condition = (
    "all A_i equal, and n_i equal or A = 0",
    lambda g: len(set(g[0])) == 1 and (len(set(g[1])) == 1 or g[0][0] == 0),
)
CONDITIONS: list[list[Condition]] = [
    [ALWAYS, EQUAL_MEANS, EQUAL_MEANS],
    [EQUAL_MEANS, UNCORRELATED, ALWAYS],
    [AVERAGE_OR_ZERO, EQUAL_SUMS, EQUAL_SUMS_AND_LENGTHS],
    [EQUAL_MEANS, ALWAYS, UNCORRELATED],
]
"""The condition under which each statistic equals each target, for every response: rows Y1 to Y4, columns `TARGETS`."""


@sheet(
    "length-normalizations", "Four length normalizations against three means, all cells exact", "2402.03300; 2503.14476"
)
def normalizations_sheet() -> Sheet:
    groups = list(small_groups())
    rows: list[list[Cell]] = []
    shares: dict[str, list[float]] = {name: [] for name in TARGETS}
    exceptions = 0
    for (statistic, compute), conditions in zip(STATISTICS.items(), CONDITIONS, strict=True):
        row: list[Cell] = [statistic]
        for (target, aim), (label, holds) in zip(TARGETS.items(), conditions, strict=True):
            same = [compute(g) == aim(g) for g in groups]
            wrong = sum(s != holds(g) for s, g in zip(same, groups, strict=True))
            exceptions += wrong
            shares[target].append(sum(same) / len(groups))
            row.append(f"{label} ({sum(same)} of {len(groups)})" + (f", {wrong} exceptions" if wrong else ""))
        rows.append(row)
    return Sheet(
        ["statistic", *TARGETS],
        rows,
        [
            f"every group of three responses, A_i in 0, 1, 2, n_i in 1 to 4, in fractions: {exceptions} exceptions to "
            "'equal exactly if'",
            "Y4 - Y2 = Cov(n, A/n) / mean n, so equal lengths or equal means suffice, and neither is necessary",
            "Y3 = sum A / sum n for each i needs A_i = mean A; lengths may differ",
            "given the lengths; with random lengths Y4 is consistent only: see the claim ratio-of-sums-is-unbiased",
        ],
        "Lecture notes say 'biased unless lengths and means are equal' for three of these cells. The exact conditions "
        "are weaker.",
        Plot("", [name.split(" ")[0] for name in STATISTICS], "share of groups where they agree", shares),
    )


def token_share(total: float, length: int, gamma: float) -> float:
    """Return a with sum_{k < length} gamma^k a = total: every token's equal share of a discounted total."""
    return total / length if gamma == 1 else total * (1 - gamma) / (1 - gamma**length)


@sheet("token-share", "One token's share of a response's advantage, A (1-gamma) / (1-gamma^n)", "lecture notes on GRPO")
def token_share_sheet() -> Sheet:
    lengths, gammas = (1, 2, 4, 10, 100, 1000), (1.0, 0.99, 0.9, 0.5)
    rows: list[list[Cell]] = [[f"gamma {g:g}", *(token_share(1.0, n, g) for n in lengths)] for g in gammas]
    back = sum(0.9**k * token_share(1.0, 10, 0.9) for k in range(10))
    return Sheet(
        ["share of A = 1", *(f"n = {n}" for n in lengths)],
        rows,
        [
            "sum_{k<n} gamma^k a = a (1 - gamma^n) / (1 - gamma) = A; gamma -> 1: n a = A",
            f"gamma 0.9, n = 10: 0.1 / (1 - 0.3487) = {token_share(1.0, 10, 0.9):.4f}, and ten discounted shares are "
            f"{back:.6f} again",
            "gamma below 1: the share never falls below 1 - gamma, for any length",
        ],
        "At gamma 1 a token's share is A/n: the sequence mean. Discounting bounds the share from below.",
        Plot(
            "tokens",
            lengths,
            "share",
            {f"gamma {g:g}": [token_share(1.0, n, g) for n in lengths] for g in gammas},
            log_x=True,
            log_y=True,
        ),
    )


def old_statistics(p_old: float, p_new: float) -> tuple[float, float]:
    """Return mean and standard deviation of (r - p_old) / sd_old for r in 0, 1 with P(r = 1) = `p_new`."""
    deviation = (p_old * (1 - p_old)) ** 0.5
    return (p_new - p_old) / deviation, (p_new * (1 - p_new)) ** 0.5 / deviation


@sheet(
    "old-statistics", "New samples under the old mean and standard deviation", "lecture notes: A, B, C, D, 20 samples"
)
def old_statistics_sheet() -> Sheet:
    # Four choices, 20 samples, A is right: 5 each under the old policy; one step of 0.4 on (r - mean) / sd per choice.
    old = torch.full((4,), 0.25, dtype=torch.float64)
    reward = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    deviation = (0.25 * 0.75) ** 0.5
    advantage = (reward - 0.25) / deviation
    rows: list[list[Cell]] = [[0, 0.25, 0.0, 1.0, 0.0]]
    logits = old.log()
    for update in range(1, 6):
        logits = logits + 0.4 * old * advantage
        p = logits.softmax(0)[0].item()
        mean, spread = old_statistics(0.25, p)
        rows.append([update, p, mean, spread, 20 * mean])
    p = float(rows[1][1])
    return Sheet(
        ["update", "P(A)", "mean advantage", "sd of advantages", "sum over 20 samples"],
        rows,
        [
            f"mean 0.25, sd sqrt(0.25 x 0.75) = {deviation:.4f}: A {advantage[0]:+.4f}, others {advantage[1]:+.4f}: "
            f"5 x {advantage[0]:.4f} + 15 x ({advantage[1]:.4f}) = 0",
            f"after one update P(A) = {p:.4f}: mean ({p:.4f} - 0.25) / {deviation:.4f} = {(p - 0.25) / deviation:+.4f}",
        ],
        "Every update uses the old samples. Advantages sum to 0 over the samples whose statistics they use. Those of "
        "new samples under old statistics do not: the more the policy improves, the larger their mean.",
        Plot("update", [r[0] for r in rows], "mean advantage of new samples", {"old statistics": [r[2] for r in rows]}),
    )
