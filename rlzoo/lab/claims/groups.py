"""Group advantages: weights of easy and hard questions, baselines, groups of two.

E[g] = w_G(p) grad p      p: success rate of the question, w: its weight
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from scipy.stats import binom

from advantages import Advantage, Group, RewardToGo
from objectives import Objective
from objectives.parts import Linear, NoRatio, SequenceSum
from objectives.reinforce import REINFORCE
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.moments import Moments, moments
from rlzoo.lab.plots import Plot
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.world import make_world

SIZES = (2, 4, 8, 16, 64)
RATES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
STD, STD_UNBIASED = Group(ddof=0, eps=0), Group(ddof=1, eps=0)


def with_advantage(advantage: Advantage, **changes: object) -> Objective:
    """Return an objective that isolates an advantage: no ratio, linear surrogate, tokens summed."""
    plain = Objective(name="own", advantage=advantage, ratio=NoRatio(), surrogate=Linear(), aggregate=SequenceSum())
    return plain.but(**changes) if changes else plain


@cache
def at_rate(success: float, longest: int = 2) -> Situation:
    """Return the first update of a base with this success rate."""
    return first_update(make_world(success=success, longest=longest))


@cache
def measured_weight(advantage: Advantage, size: int, success: float) -> tuple[float, float]:
    """Return w in E[g] = w grad p, and the relative size of the part of E[g] that is not along grad p."""
    at = at_rate(success)
    mean_SV, true_SV = moments(with_advantage(advantage), at, size).mean_SV, at.true_gradient_SV
    weight = ((mean_SV * true_SV).sum() / true_SV.square().sum()).item()
    return weight, ((mean_SV - weight * true_SV).norm() / mean_SV.norm()).item()


def closed_form(size: int, p: float, ddof: int = 0) -> float:
    """w_G(p) = E[sqrt((1-q)/q)]_{q=(K+1)/G} + E[sqrt(q/(1-q))]_{q=K/G}, K ~ Bin(G-1, p); uniform groups count 0."""
    k = np.arange(size)
    law = binom.pmf(k, size - 1, p)
    right, wrong = (k + 1) / size, k / size
    weight = (law * (np.sqrt((1 - right) / right) + np.sqrt(wrong / (1 - wrong)))).sum()
    return float(weight * (np.sqrt((size - 1) / size) if ddof else 1.0))


@claim(
    name="difficulty-weight",
    statement="With right/wrong rewards, dividing by the group's std multiplies a question's gradient by w_G(p), which "
    "has a closed form, and keeps its direction.",
    conditions="rewards of two values, tokens of a response summed, first update after sampling",
    origin="lemma",
    source="derived; follows from 2402.03300, section 4.1.2",
    how="exact E[g] = w grad p for G in 2, 4, 8, 16, 64 and six success rates, population and unbiased std",
    expected="supported",
)
def difficulty_weight() -> Finding:
    worst, off = 0.0, 0.0
    table: dict[str, list[float]] = {}
    for size in SIZES:
        for ddof, advantage in ((0, STD), (1, STD_UNBIASED)):
            for p in RATES:
                weight, sideways = measured_weight(advantage, size, p)
                worst, off = max(worst, abs(weight - closed_form(size, p, ddof))), max(off, sideways)
                if ddof == 0:
                    table.setdefault(str(size), []).append(weight)
    shown = "; ".join(f"G={size}: " + ", ".join(f"{w:.3f}" for w in table[str(size)]) for size in SIZES)
    return Finding(
        worst < 1e-9 and off < 1e-9,
        f"w at p = {', '.join(f'{p:g}' for p in RATES)}: {shown}; largest deviation from the closed form {worst:.0e}",
        {"success": list(RATES), "weight": table, "deviation": worst},
    )


@claim(
    name="no-difficulty-weight-in-twos",
    statement="With right/wrong rewards and groups of two, dividing by the std gives all questions the same weight: "
    "w = 1, or sqrt(1/2) with the n-1 std.",
    conditions="rewards of two values; with three values it is false, as the measurement shows",
    origin="lemma",
    source="derived",
    how="exact E[g] = w grad p at G = 2 and six success rates; then with a third reward of 0.2 for wrong answers that "
    "end",
    expected="supported",
)
def no_difficulty_in_twos() -> Finding:
    gaps = [abs(measured_weight(STD, 2, p)[0] - 1) for p in RATES]
    gaps += [abs(measured_weight(STD_UNBIASED, 2, p)[0] - 0.5**0.5) for p in RATES]
    three: dict[float, tuple[float, float]] = {}
    for p in (0.02, 0.25, 0.5):
        at = at_rate(p, 3)
        graded_R = torch.where(at.space.finished_R & (at.reward_R == 0), 0.2, at.reward_R)  # wrong, but it ends
        there = replace(at, reward_R=graded_R)
        mean_SV, true_SV = moments(with_advantage(STD), there, 2).mean_SV, there.true_gradient_SV
        weight = ((mean_SV * true_SV).sum() / true_SV.square().sum()).item()
        three[p] = (weight, torch.cosine_similarity(mean_SV.flatten(), true_SV.flatten(), 0).item())
    return Finding(
        max(gaps) < 1e-10,
        f"two values: largest deviation {max(gaps):.0e}; three values (0, 0.2, 1): "
        + "; ".join(f"p = {p:g}: weight {w:.2f}, cosine {c:.2f}" for p, (w, c) in three.items()),
        {"deviation": max(gaps), "three values": {str(p): x for p, x in three.items()}},
    )


@claim(
    name="std-favours-hard-and-easy",
    statement="In groups of four and more, std normalization gives very hard and very easy questions more weight.",
    conditions="groups of 4 to 64, right/wrong rewards, against the weight at success rate 0.5",
    origin="paper",
    source="2503.20783, section 3.1",
    quote="Questions with lower standard deviations [...] are given higher weights during policy updates.",
    how="exact w_G(p) / w_G(0.5) at p = 0.01, 0.1, 0.9, 0.99",
    expected="supported",
)
def std_favours_extremes() -> Finding:
    ratios = {
        size: [measured_weight(STD, size, p)[0] / measured_weight(STD, size, 0.5)[0] for p in (0.01, 0.1, 0.9, 0.99)]
        for size in (4, 8, 16, 64)
    }
    shown = "; ".join(f"G={size}: " + ", ".join(f"{x:.2f}" for x in row) for size, row in ratios.items())
    return Finding(min(min(row) for row in ratios.values()) > 1, shown, {str(k): v for k, v in ratios.items()})


@claim(
    name="std-weight-is-bounded",
    statement="The weight that dividing by the group's std gives a question never exceeds sqrt(G-1), so hard questions "
    "do not reach the 1 / sqrt(p (1-p)) of infinite groups.",
    conditions="groups of 2 to 64, right/wrong rewards, p = 0.001; the limit of large groups is 2510.13651's",
    origin="lemma",
    source="derived",
    how="exact w_G(0.001) against 1 / sqrt(p (1-p)) = 31.6 and against sqrt(G-1)",
    expected="supported",
)
def std_weight_bounded() -> Finding:
    weights = {size: measured_weight(STD, size, 0.001)[0] for size in SIZES}
    bounded = all(w <= (size - 1) ** 0.5 + 1e-9 for size, w in weights.items())
    shown = ", ".join(f"G={size}: {w:.2f} of at most {(size - 1) ** 0.5:.2f}" for size, w in weights.items())
    return Finding(
        bounded,
        f"at p = 0.001, where 1 / sqrt(p (1-p)) = 31.6: {shown}",
        {str(k): v for k, v in weights.items()},
        plot=Plot(
            "group size",
            list(SIZES),
            "weight at p = 0.001",
            {"measured": list(weights.values()), "sqrt(G-1)": [(size - 1) ** 0.5 for size in SIZES]},
            log_x=True,
        ),
    )


@claim(
    name="leave-one-out-is-unbiased",
    statement="Leave-one-out gives every question exactly the weight 1, the group mean (G-1)/G, at any success rate.",
    conditions="right/wrong rewards, tokens of a response summed, five group sizes, six success rates",
    origin="lemma",
    source="follows from 2402.14740, section 3; 2503.20783, section 3.2",
    how="exact E[g] = w grad p over the same grid",
    expected="supported",
)
def mean_only_weights() -> Finding:
    worst = 0.0
    for size in SIZES:
        for p in RATES:
            rloo, off = measured_weight(RewardToGo(baseline="leave_one_out"), size, p)
            centred, also_off = measured_weight(Group(scale="none"), size, p)
            worst = max(worst, abs(rloo - 1), abs(centred - (size - 1) / size), off, also_off)
    return Finding(worst < 1e-9, f"largest deviation {worst:.0e}", {"deviation": worst})


def _noise(objective: Objective, size: int, at: Situation) -> float:
    """Return the number of sampled responses at which noise equals signal, relative to the objective's own E[g]."""
    found: Moments = moments(objective, at, size)
    return found.variance / found.mean_SV.square().sum().item() * size / found.kept


@claim(
    name="two-is-as-good-as-sixteen",
    statement="Groups of 2 learn as much from a sampled response as groups of 16 (within 25% of noise).",
    conditions="one update, noise per sampled response at equal signal; each prompt has a separate table; parameters "
    "shared by prompts lie between the two cases",
    origin="paper",
    source="2510.00977, abstract",
    quote="2-GRPO retains 97.6% of the performance of 16-GRPO, while requiring only 12.5% of the rollouts",
    how="exact noise of GRPO's advantage and of leave-one-out at success rates 0.02 to 0.9: one fixed prompt, and "
    "prompts drawn from a pool of all six",
    expected="depends",
)
def two_or_sixteen() -> Finding:
    rates = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9)
    kinds = {"std": STD, "leave-one-out": RewardToGo(baseline="leave_one_out")}
    fixed = {
        name: [
            _noise(with_advantage(a), 2, at_rate(p, 3)) / _noise(with_advantage(a), 16, at_rate(p, 3)) for p in rates
        ]
        for name, a in kinds.items()
    }
    drawn = {name: drawn_noise(a, 2, rates) / drawn_noise(a, 16, rates) for name, a in kinds.items()}
    within = [max(fixed["std"]) < 1.25, max(drawn.values()) < 1.25]
    return Finding(
        within[0] if within[0] == within[1] else "depends",
        f"noise of groups of 2 over that of 16. One fixed prompt, at p = {', '.join(f'{p:g}' for p in rates)}: std "
        f"{', '.join(f'{x:.2f}' for x in fixed['std'])}; leave-one-out "
        f"{', '.join(f'{x:.2f}' for x in fixed['leave-one-out'])}: a baseline from one other response is noisy. "
        f"Prompts drawn from a pool of all six: std {drawn['std']:.2f}, leave-one-out {drawn['leave-one-out']:.2f}: "
        "the draw of prompts is noise too, and groups of 2 contain eight times as many prompts",
        {"success": rates, "fixed": fixed, "drawn": drawn},
        plot=Plot("success rate", list(rates), "noise of groups of 2 over 16, one prompt", fixed),
    )


def drawn_noise(advantage: Advantage, size: int, rates: Sequence[float]) -> float:
    """Return noise over signal per response if each group's prompt is drawn from a pool with a table per prompt.

    E|g|^2 is the mean over prompts of variance + |mean|^2; E[g] holds 1/n of each prompt's mean in its own table.
    """
    found = [moments(with_advantage(advantage), at_rate(p, 3), size) for p in rates]
    squares = [m.mean_SV.square().sum().item() for m in found]
    second = sum(m.variance + square for m, square in zip(found, squares, strict=True)) / len(rates)
    signal = sum(squares) / len(rates) ** 2
    return (second / signal - 1) * size


@claim(
    name="a-baseline-cuts-variance",
    statement="Subtracting a baseline always cuts the variance.",
    conditions="leave-one-out baseline in groups of 8, five success rates, rewards 0/1 and 3/4",
    origin="often said",
    source="textbooks on policy gradients",
    how="exact variance, leave-one-out baseline in groups of 8 over none, rewards 0/1 and 3/4, five success rates",
    expected="refuted",
)
def baseline_cuts_variance() -> Finding:
    rates = (0.01, 0.05, 0.25, 0.5, 0.8)
    shown: dict[str, list[float]] = {}
    best: list[float] = []
    for p in rates:
        at = first_update(make_world(success=p))
        best.append(best_constant(at))
        for offset in (0.0, 3.0):
            there = replace(at, reward_R=at.reward_R + offset)
            none, rloo = (
                moments(REINFORCE.but(**{"advantage.baseline": b}), there, 8).variance
                for b in ("none", "leave_one_out")
            )
            shown.setdefault(f"{offset:g}/{offset + 1:g}", []).append(rloo / none)
    text = "; ".join(f"rewards {k}: " + ", ".join(f"{x:.2f}" for x in row) for k, row in shown.items())
    return Finding(
        max(max(row) for row in shown.values()) <= 1,
        f"variance with over without, at p = {', '.join(f'{p:g}' for p in rates)}: {text}. The best constant is not p "
        f"but E[r |score|^2] / E[|score|^2] = {', '.join(f'{b:.2f}' for b in best)} (rewards 0/1); a constant above "
        "twice that raises the variance",
        {"success": rates, "ratio": shown, "best constant": best},
    )


def best_constant(at: Situation) -> float:
    """E[r |score|^2] / E[|score|^2], score = grad log pi(y): the constant baseline of least variance."""
    ones_RT = at.space.mask_RT.double()
    square_R = at.rows(ones_RT, torch.arange(len(ones_RT))).square().sum(dim=(1, 2))
    p_R = at.old_probability_R
    return ((p_R * at.reward_R * square_R).sum() / (p_R * square_R).sum()).item()


@claim(
    name="group-advantage-is-biased",
    statement="Given a mixed group, r - mean underestimates the advantages of hard questions and overestimates those "
    "of easy ones; the sign flips at p = 0.5.",
    conditions="groups of 8, right/wrong rewards, given that the group is mixed",
    origin="paper",
    source="2601.08521, abstract",
    quote="it systematically underestimates advantages for hard prompts and overestimates them for easy prompts",
    how="E[(r - mean) - (r - p) given mixed] = p - E[r given mixed] by binomial sums, G = 8",
    expected="supported",
)
def advantage_is_biased() -> Finding:
    rates = (0.05, 0.25, 0.5, 0.75, 0.95)
    k = np.arange(1, 8)
    biases: list[float] = []
    for p in rates:
        law = binom.pmf(k, 8, p)
        biases.append(float(p - (law * k / 8).sum() / law.sum()))
    return Finding(
        max(biases[:2]) < -1e-6 and abs(biases[2]) < 1e-12 and min(biases[3:]) > 1e-6,
        "bias at p = " + ", ".join(f"{p:g}: {b:+.3f}" for p, b in zip(rates, biases, strict=True)),
        {"success": rates, "bias": biases},
    )


@claim(
    name="mixed-groups-keep-the-direction",
    statement="Although r - mean is a biased advantage given a mixed group, the expected gradient of a question's "
    "mixed groups points exactly along its true gradient.",
    conditions="groups of 8, right/wrong rewards, mixed groups only, five success rates",
    origin="lemma",
    source="derived, on 2601.08521",
    how="exact expected gradient of r - mean over mixed groups only, G = 8",
    expected="supported",
)
def gradient_given_mixed() -> Finding:
    cosines: list[float] = []
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        at = at_rate(p, 3)
        mean_SV = moments(with_advantage(Group(scale="none"), select="mixed"), at, 8).mean_SV
        cosines.append(torch.cosine_similarity(mean_SV.flatten(), at.true_gradient_SV.flatten(), 0).item())
    gap = max(1 - min(cosines), 0.0)
    return Finding(gap < 1e-9, f"1 - cosine is at most {gap:.0e}: only the length changes", {"gap": gap})
