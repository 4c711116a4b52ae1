"""Entropy: its change per step, its relation to reward, and training on right against training on wrong answers.

dH / eta = -Cov(log pi, pi A)  for a policy-gradient step;   -Cov(log pi, A)  for a natural one
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from rlzoo.lab import qstar
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.claims.groups import closed_form
from rlzoo.lab.plots import Plot
from rlzoo.lab.single import relative_difference, single
from rlzoo.lab.situation import first_update
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import make_world, parity

DRAWS = range(LEAST_DRAWS)
STEP = 1e-5


def entropy_change(logits_V: Tensor, advantage_V: Tensor, natural: bool) -> tuple[float, float, float]:
    """Return the change of a softmax's entropy per unit step, by finite difference, and the two negative covariances.

    The step is the policy gradient pi A or the natural one A, with A centred under pi.

    Returns:
        dH / eta, -Cov(log pi, pi A), -Cov(log pi, A).
    """
    pi = logits_V.softmax(0)
    a = advantage_V - pi @ advantage_V
    direction = a if natural else pi * a

    def entropy(x_V: Tensor) -> Tensor:
        return -(x_V.softmax(0) * x_V.log_softmax(0)).sum()

    change = (entropy(logits_V + STEP * direction) - entropy(logits_V - STEP * direction)) / (2 * STEP)
    log_pi = pi.log()

    def covariance(x_V: Tensor) -> Tensor:
        return pi @ (log_pi * x_V) - (pi @ log_pi) * (pi @ x_V)

    return change.item(), -covariance(pi * a).item(), -covariance(a).item()


@claim(
    name="entropy-falls-with-the-covariance",
    statement="A policy-gradient step changes a state's entropy by -Cov(log pi, pi A) per unit step; -Cov(log pi, A) "
    "belongs to the natural policy gradient.",
    conditions="one state, softmax over 8 tokens, exact gradient, first order in the step; 20 draws of logits and "
    "advantages",
    origin="paper",
    source="2505.22617, section 3, theorems 1 and 2",
    quote="the change in policy entropy is driven by the covariance between action",
    how="central differences of the entropy along both steps against both covariances",
    expected="supported",
)
def entropy_covariance() -> Finding:
    worst, ratios, rows = 0.0, [], []
    for draw in DRAWS:
        generator = torch.Generator().manual_seed(draw)
        logits_V, advantage_V = torch.randn(2, 8, generator=generator, dtype=torch.float64)
        plain, with_pi, without = entropy_change(logits_V, advantage_V, natural=False)
        natural = entropy_change(logits_V, advantage_V, natural=True)[0]
        worst = max(worst, abs(plain - with_pi), abs(natural - without))
        ratios.append(without / plain)
        rows.append((plain, with_pi, without))
    return Finding(
        worst < 1e-7,
        f"largest difference {worst:.0e} of either step from its own covariance, over {LEAST_DRAWS} draws; the natural "
        f"gradient's covariance is {torch.tensor(ratios).median():.1f} times the plain step's change (median)",
        {"steps": rows, "factor": ratios},
        arithmetic=[
            f"draw {i}: dH / eta = {p:+.4f}; -Cov(log pi, pi A) = {w:+.4f}; -Cov(log pi, A) = {n:+.4f}"
            for i, (p, w, n) in enumerate(rows[:3])
        ],
        plot=Plot(
            "draw",
            DRAWS,
            "dH / eta",
            {"policy gradient": [r[0] for r in rows], "-Cov(log pi, A)": [r[2] for r in rows]},
        ),
    )


RATES = (0.1, 0.25, 0.5)
WEIGHTS = ("leave-one-out", "group std", "log-likelihood")


@cache
def trajectories(weighting: str, steps: int = 240, rate: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return mean success rate and mean response entropy of 20 bases along exact ascent: [K, steps], [K, steps].

    Each base has three prompts with separate tables; a prompt's gradient has weight 1, w_8(p) or 1 / p.
    """
    space = enumerate_responses(3, 3)
    worlds = [make_world(success=p, longest=3, seed=draw).logits_SV for draw in DRAWS for p in RATES]
    logits_XSV, right_R = torch.stack(worlds), parity(space)
    rewards, entropies = list[Tensor](), list[Tensor]()
    for _ in range(steps):
        leaf = logits_XSV.requires_grad_()
        law_XR = qstar.probability(leaf.softmax(dim=-1), space)
        p_X = law_XR @ right_R
        entropy_X = -(law_XR * law_XR.clamp(min=1e-300).log()).sum(dim=-1)
        (slope,) = torch.autograd.grad(p_X.sum(), leaf)
        p, h = p_X.detach().view(-1, len(RATES)), entropy_X.detach().view(-1, len(RATES))
        rewards.append(p.mean(dim=1))
        entropies.append(h.mean(dim=1))
        weight_X = torch.ones_like(p_X) if weighting == "leave-one-out" else 1 / p_X
        if weighting == "group std":
            weight_X = torch.tensor([closed_form(8, x) for x in p_X.tolist()], dtype=torch.float64)
        logits_XSV = (leaf + rate * weight_X.detach()[:, None, None] * slope).detach()
    return torch.stack(rewards, dim=1), torch.stack(entropies, dim=1)


def fitted(reward: Tensor, entropy: Tensor) -> tuple[float, float, float]:
    """Return a and b of R = -a exp(H) + b by least squares, and the share of explained variance."""
    x = entropy.exp()
    slope = ((x - x.mean()) * (reward - reward.mean())).sum() / (x - x.mean()).square().sum()
    b = reward.mean() - slope * x.mean()
    rest = (reward - slope * x - b).square().sum() / (reward - reward.mean()).square().sum()
    return -slope.item(), b.item(), 1 - rest.item()


@claim(
    name="the-entropy-law-is-one-for-all",
    statement="Reward and entropy are related by R = -a exp(H) + b, with the same a and b for every algorithm.",
    conditions="exact ascent from 20 bases with three prompts of success rate 0.1, 0.25, 0.5 and separate tables; "
    "entropy of whole responses; three weightings of prompts; the same: values of a within 10%",
    origin="paper",
    source="2505.22617, section 2",
    quote="we establish a transformation equation R=-a*exp(H)+b between entropy H and downstream performance R",
    how="least squares over each base's path for leave-one-out, the group's std and log-likelihood: explained "
    "variance, and spread of a over the three",
    expected="refuted",
)
def entropy_law() -> Finding:
    fits = {name: [fitted(r, h) for r, h in zip(*trajectories(name), strict=True)] for name in WEIGHTS}
    explained = {name: sum(f[2] for f in rows) / len(rows) for name, rows in fits.items()}
    spreads = []
    for draw in DRAWS:
        a = [fits[name][draw][0] for name in WEIGHTS]
        spreads.append((max(a) - min(a)) / abs(sum(a) / len(a)))
    share = sum(s < 0.1 for s in spreads) / len(spreads)
    good = min(explained.values())
    means = {name: sum(f[0] for f in rows) / len(rows) for name, rows in fits.items()}
    return Finding(
        over_draws([share]),
        f"the law explains {good:.0%} or more of the variance on average ("
        + ", ".join(f"{name} {x:.1%}, a = {means[name]:.3f}" for name, x in explained.items())
        + f"); a differs between the three by {min(spreads):.0%} to {max(spreads):.0%}, by less than 10% in "
        f"{share:.0%} of the bases",
        {"a": means, "explained": explained, "spread": spreads},
        plot=Plot(
            "step",
            range(trajectories(WEIGHTS[0])[0].shape[1]),
            "mean success rate of base 0",
            {name: trajectories(name)[0][0].tolist() for name in WEIGHTS},
        ),
    )


@cache
def one_sided(sign: int, responses: int = 8, steps: int = 400, rate: float = 0.3) -> list[float]:
    """Return the response entropy of each of 20 bases when one-sided training first reaches a success rate of 0.6.

    `sign` +1: right responses only, reward +1; -1: wrong ones only, reward -1. The gradient is the mean over all
    `responses` sampled per step. nan: not reached.
    """
    worlds = [make_world(longest=3, seed=draw) for draw in DRAWS]
    space, reward_R = worlds[0].space, worlds[0].reward_R
    logits_KSV = torch.stack([world.logits_SV for world in worlds])
    generator = torch.Generator().manual_seed(0)
    entropy_K = torch.full((len(worlds),), torch.nan, dtype=torch.float64)
    for _ in range(steps):
        law_KR = qstar.probability(logits_KSV.softmax(dim=-1), space)
        now_K = -(law_KR * law_KR.clamp(min=1e-300).log()).sum(dim=1)
        entropy_K = torch.where(entropy_K.isnan() & (law_KR @ reward_R >= 0.6), now_K, entropy_K)
        if not entropy_K.isnan().any():
            break
        response_KG = law_KR.multinomial(responses, replacement=True, generator=generator)
        told_KG = reward_R[response_KG] if sign > 0 else reward_R[response_KG] - 1
        c_KR = torch.zeros_like(law_KR).scatter_add(1, response_KG, told_KG / responses)
        leaf = logits_KSV.requires_grad_()
        log_KRT = leaf.log_softmax(dim=-1)[:, space.state_RT, space.token_RT]
        objective = (c_KR[..., None] * torch.where(space.mask_RT, log_KRT, 0)).sum()
        logits_KSV = (leaf + rate * torch.autograd.grad(objective, leaf)[0]).detach()
    return entropy_K.tolist()


@claim(
    name="negatives-keep-entropy",
    statement="At the same success rate, training on wrong responses only leaves more entropy than training on right "
    "ones only.",
    conditions="on-policy, no normalization, 20 bases, tabular policies, success rate 0.25 to 0.6; exact expected "
    "gradient, and sampled training with 8 responses a step",
    origin="paper",
    source="2506.01347, abstract",
    quote="reinforcing only correct responses improves Pass@1 but degrades performance at higher k",
    how="exact expected gradients of +1 on right and of -1 on wrong responses; response entropy when sampled training "
    "first reaches 0.6",
    expected="supported",
)
def negatives() -> Finding:
    gap = 0.0
    for draw in DRAWS:
        at = first_update(make_world(longest=3, seed=draw))
        shape = at.space.mask_RT.shape
        positive, negative = (
            single(at, told_R[:, None].expand(shape), at.true_gradient_SV).mean_SV
            for told_R in (at.reward_R, at.reward_R - 1)
        )
        gap = max(gap, relative_difference(positive, negative))
    pairs = zip(one_sided(1), one_sided(-1), strict=True)
    reached = [(p, n) for p, n in pairs if math.isfinite(p + n)]
    share = sum(n > p for p, n in reached) / len(reached)
    positive_mean, negative_mean = (sum(column) / len(reached) for column in zip(*reached, strict=True))
    sampled = over_draws([share])
    return Finding(
        sampled if gap > 1e-9 else "depends" if sampled is True else False,
        f"in expectation the two gradients are equal, to {gap:.0e}. Sampled: training on wrong responses leaves more "
        f"entropy in {share:.0%} of the {len(reached)} bases that reach 0.6 both ways, {negative_mean:.3f} against "
        f"{positive_mean:.3f} nats on average",
        {"gap": gap, "entropy": reached, "share": share},
        arithmetic=["E[r grad log pi] - E[(r - 1) grad log pi] = E[grad log pi] = 0, as probabilities sum to 1"],
        plot=Plot(
            "base",
            range(len(reached)),
            "entropy at success rate 0.6",
            {"right only": [p for p, _ in reached], "wrong only": [n for _, n in reached]},
        ),
    )
