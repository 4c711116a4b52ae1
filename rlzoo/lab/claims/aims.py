"""The function that an estimator maximizes: truncated likelihood, pass@k, preferences of pairs."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.claims.groups import RATES, at_rate
from rlzoo.lab.drift import drifted
from rlzoo.lab.plots import Plot
from rlzoo.lab.single import relative_difference, single
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.world import make_world

DRAWS = range(LEAST_DRAWS)


def maxrl_weight(size: int, p: float) -> float:
    """w in E[g] = w grad p for A = (r - mean) / mean (0 in all-wrong groups): E[(G-1-K)/(K+1)] + P(K > 0), K right
    others."""
    k = np.arange(size)
    law = binom.pmf(k, size - 1, p)
    return float((law * (size - 1 - k) / (k + 1)).sum() + law[1:].sum())


def maxrl_by_enumeration(size: int, at: Situation) -> Tensor:
    """E[g] of the same advantage over every ordered group of `size` right/wrong answers, [S, V]."""
    p = (at.old_probability_R * at.reward_R).sum()
    advantage_2 = torch.zeros(2, dtype=torch.float64)  # expected advantage of a wrong and of a right first member
    for others in itertools.product((0, 1), repeat=size - 1):
        chance = torch.tensor([p if r else 1 - p for r in others], dtype=torch.float64).prod()
        for own in (0, 1):
            mean = (own + sum(others)) / size
            advantage_2[own] += chance * ((own - mean) / mean if mean else 0.0)
    c_RT = advantage_2[at.reward_R.long()][:, None].expand(at.space.mask_RT.shape)
    return single(at, c_RT, at.true_gradient_SV).mean_SV


@claim(
    name="maxrl-climbs-a-truncated-likelihood",
    statement="Dividing r - mean by the group's mean reward instead of its std climbs log p truncated after G-1 "
    "terms: E[g] = (1 - (1-p)^(G-1)) / p grad p.",
    conditions="right/wrong rewards, all-wrong groups skipped, tokens summed, first update after sampling",
    origin="paper",
    source="2602.02710, abstract; the truncation at G-1 is derived",
    quote="interpolate between standard reinforcement learning and exact maximum likelihood",
    how="binomial sum against the closed form at six success rates and G = 2 to 64, enumeration of every group of 4, "
    "and the gradient of -sum_{k<G} (1-p)^k / k by autograd",
    expected="supported",
)
def maxrl() -> Finding:
    sizes, worst = (2, 4, 8, 16, 64), 0.0
    table: dict[int, list[float]] = {}
    for size in sizes:
        table[size] = [maxrl_weight(size, p) for p in RATES]
        for p, weight in zip(RATES, table[size], strict=True):
            leaf = torch.tensor(p, dtype=torch.float64, requires_grad=True)
            truncated = -sum((1 - leaf) ** k / k for k in range(1, size))
            (slope,) = torch.autograd.grad(truncated, leaf)
            worst = max(worst, abs(weight / slope.item() - 1), abs(weight / ((1 - (1 - p) ** (size - 1)) / p) - 1))
    at = at_rate(0.25)
    enumerated = relative_difference(maxrl_by_enumeration(4, at), maxrl_weight(4, 0.25) * at.true_gradient_SV)
    shown = "; ".join(f"G={size}: {', '.join(f'{w:.2f}' for w in row)}" for size, row in table.items())
    return Finding(
        worst < 1e-9 and enumerated < 1e-9,
        f"weight at p = {', '.join(f'{p:g}' for p in RATES)}: {shown}; largest relative deviation {worst:.0e}, of the "
        f"enumeration {enumerated:.0e}",
        {"success": RATES, "weight": table, "deviation": worst},
        arithmetic=["p = 0.25, G = 8: (1 - 0.75^7) / 0.25 = (1 - 0.1335) / 0.25 = 3.466; likelihood itself: 1 / p = 4"],
        plot=Plot("success rate", RATES, "weight of the question", {f"G={k}": v for k, v in table.items()}, log_y=True),
    )


def shared_prompts(k: int, steps: int = 3000, rate: float = 1.0) -> tuple[list[float], list[float]]:
    """Return pass@1 and pass@8 before and after ascent on the mean pass@k of two prompts with one policy.

    The policy has three answers. Answer 0 is right for the first prompt (weight 0.6), answer 1 for the second.
    """
    share = torch.tensor([0.6, 0.4], dtype=torch.float64)
    logits = torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64).log()

    def passed(pi: Tensor, tries: int) -> Tensor:
        return share @ (1 - (1 - pi[:2]) ** tries)

    ends = [[passed(logits.softmax(0), n).item()] for n in (1, 8)]
    for _ in range(steps):
        leaf = logits.requires_grad_()
        (slope,) = torch.autograd.grad(passed(leaf.softmax(0), k), leaf)
        logits = (leaf + rate * slope).detach()
    for row, n in zip(ends, (1, 8), strict=True):
        row.append(passed(logits.softmax(0), n).item())
    return ends[0], ends[1]


@claim(
    name="pass-at-1-training-lowers-pass-at-k",
    statement="Training on pass@1 lowers pass@k for large k.",
    conditions="exact gradient; one prompt, and two prompts that share a policy and need different answers; pass@8",
    origin="paper",
    source="2504.13837, abstract (measured after training)",
    how="pass@8 of one prompt along its pass@1 gradient; mean pass@8 of two prompts after ascent on pass@1 or pass@8",
    expected="depends",
)
def pass_at_k() -> Finding:
    gap = 0.0
    for p in RATES:
        at = at_rate(p)
        leaf_SV = at.logits_SV.clone().requires_grad_()
        rate = exact.expected(leaf_SV, at.space, at.reward_R)
        (slope_SV,) = torch.autograd.grad(1 - (1 - rate) ** 8, leaf_SV)
        gap = max(gap, relative_difference(slope_SV, 8 * (1 - p) ** 7 * at.true_gradient_SV))
    by_one, by_eight = shared_prompts(1), shared_prompts(8)
    falls_alone, falls_shared = False, by_one[1][1] < by_one[1][0] - 1e-6
    return Finding(
        falls_shared if falls_shared == falls_alone else "depends",
        f"one prompt: grad pass@8 = 8 (1-p)^7 grad p, to {gap:.0e}, so every step that raises pass@1 raises pass@8. "
        f"Two prompts, one policy: ascent on pass@1 moves pass@1 {by_one[0][0]:.3f} -> {by_one[0][1]:.3f} and pass@8 "
        f"{by_one[1][0]:.3f} -> {by_one[1][1]:.3f}; ascent on pass@8 moves pass@1 {by_eight[0][0]:.3f} -> "
        f"{by_eight[0][1]:.3f} and pass@8 {by_eight[1][0]:.3f} -> {by_eight[1][1]:.3f}",
        {"identity": gap, "by pass@1": by_one, "by pass@8": by_eight},
        arithmetic=[
            "pass@k = 1 - (1-p)^k, so its slope in p is k (1-p)^(k-1) > 0: "
            + ", ".join(f"p = {p:g}: {8 * (1 - p) ** 7:.3f}" for p in RATES),
        ],
        plot=Plot(
            "",
            ["pass@1", "pass@8"],
            "mean over two prompts",
            {
                "before": [by_one[0][0], by_one[1][0]],
                "after pass@1": [by_one[0][1], by_one[1][1]],
                "after pass@8": [by_eight[0][1], by_eight[1][1]],
            },
        ),
    )


@cache
def pair_gradients(at_draw: int, kl: float) -> float:
    """Cosine of 2-GRPO's and online DPO's expected gradients over pairs (right, wrong); the reference is the base."""
    base = first_update(make_world(longest=3, seed=at_draw))
    at = drifted(base, kl, at_draw) if kl else base
    pi_R = exact.probability(at.logits_SV, at.space)
    log_R = at.space.logp_RT(at.logp_SV).sum(dim=1)
    implied_R = log_R - at.space.logp_RT(at.ref_logits_SV.log_softmax(dim=1)).sum(dim=1)
    right, wrong = (at.reward_R == 1).nonzero().flatten(), (at.reward_R == 0).nonzero().flatten()
    pair_WL = pi_R[right][:, None] * pi_R[wrong]
    grpo_R, dpo_R = torch.zeros(2, len(pi_R), dtype=torch.float64)
    # DPO: sigmoid(-(h_w - h_l)), beta 1; the pair's gradient is that weight times score_w - score_l.
    push_WL = pair_WL * torch.sigmoid(-(implied_R[right][:, None] - implied_R[wrong]))
    for c_R, weight_WL in ((grpo_R, pair_WL), (dpo_R, push_WL)):
        c_R[right] += weight_WL.sum(dim=1) / pi_R[right]
        c_R[wrong] -= weight_WL.sum(dim=0) / pi_R[wrong]
    shape = at.space.mask_RT.shape
    grads = [single(at, c_R[:, None].expand(shape), at.true_gradient_SV, pi_R).mean_SV for c_R in (grpo_R, dpo_R)]
    return torch.cosine_similarity(grads[0].flatten(), grads[1].flatten(), 0).item()


@claim(
    name="two-grpo-is-online-dpo",
    statement="In groups of two, GRPO's gradient has the direction of online DPO's on the same pairs.",
    conditions="right/wrong rewards, pairs sampled from the policy, beta 1, 20 bases at KL 0 to 1 from the reference; "
    "the same direction means a cosine above 0.999",
    origin="paper",
    source="2510.00977, abstract",
    quote="This makes GRPO structurally related to preference learning methods such as DPO.",
    how="exact expected gradients over all pairs of a right and a wrong response: +1/-1 against DPO's sigmoid weight",
    expected="depends",
)
def secretly_dpo() -> Finding:
    distances = (0.0, 0.1, 0.3, 1.0)
    rows = {kl: [pair_gradients(draw, kl) for draw in DRAWS] for kl in distances}
    shares = [sum(c > 0.999 for c in row) / len(row) for row in rows.values()]
    text = "; ".join(
        f"KL {kl:g}: mean cosine {sum(row) / len(row):.4f}, above 0.999 in {share:.0%}"
        for (kl, row), share in zip(rows.items(), shares, strict=True)
    )
    return Finding(
        over_draws(shares),
        f"{text}. At the reference every pair has weight sigmoid(0) = 1/2; away from it DPO gives less weight to pairs "
        "that are already in order, GRPO does not",
        {"distance": distances, "cosine": list(rows.values())},
        plot=Plot(
            "KL from the reference", distances, "mean cosine", {"pairs": [sum(r) / len(r) for r in rows.values()]}
        ),
    )
