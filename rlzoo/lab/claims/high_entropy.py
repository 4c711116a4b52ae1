"""Training only on the tokens of high entropy, with and without shared parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rlzoo.lab import exact, qstar
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.plots import Plot
from rlzoo.lab.policy import Kind
from rlzoo.lab.space import Space
from rlzoo.lab.world import World, make_world, parity

DRAWS = range(LEAST_DRAWS)
SHARE = 0.2
Where = Literal["all", "top", "random"]
WHERE: dict[Where, str] = {"all": "all tokens", "top": "highest entropy", "random": "at random"}


def chosen_states(world: World, where: Where, draw: int) -> Tensor:
    """Return 1 at the trained states, [S]: the first in their order that cover a fifth of the base's tokens."""
    pi_SV = world.logits_SV.softmax(dim=1)
    visits_S = exact.visits(pi_SV, world.space)
    if where == "all":
        return torch.ones_like(visits_S)
    order_S = -(pi_SV * pi_SV.log()).sum(dim=1)
    if where == "random":
        order_S = torch.rand(len(order_S), generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
    place = order_S.argsort(descending=True)
    before = visits_S[place].cumsum(0) - visits_S[place]
    return torch.zeros_like(visits_S).index_fill(0, place[before < SHARE * visits_S.sum()], 1.0)


@cache
def _worlds(kind: Kind) -> tuple[World, ...]:
    return tuple(make_world(kind=kind, seed=draw) for draw in DRAWS)


@cache
def reached(kind: Kind, where: Where, steps: int = 80, step: float = 0.3) -> tuple[list[float], list[float]]:
    """Return per base the chosen states' share of the squared gradient in logits at the start, and the success rate
    after ascent.

    Every step moves `step` in parameters (a transformer: half of it) along the exact gradient of the chosen states.
    """
    worlds = _worlds(kind)
    space, right_R = worlds[0].space, parity(worlds[0].space)
    mask_KS = torch.stack([chosen_states(world, where, draw) for draw, world in zip(DRAWS, worlds, strict=True)])
    theta_KM = torch.stack([world.theta_M for world in worlds])
    # A policy stores no parameters, so one serves all bases. vmap needs attention in plain operations.
    logits_of: Callable[[Tensor], Tensor] = torch.vmap(worlds[0].policy.logits_SV)
    held: list[float] = []
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            for _ in range(steps):
                leaf_KM = theta_KM.requires_grad_()
                logits_KSV = logits_of(leaf_KM)
                slope_KSV = _slopes(logits_KSV.detach(), space, right_R)
                kept_KSV = mask_KS[..., None] * slope_KSV
                held = held or (kept_KSV.square().sum((1, 2)) / slope_KSV.square().sum((1, 2))).tolist()
                (ascent_KM,) = torch.autograd.grad(logits_KSV, leaf_KM, kept_KSV)
                size = step if kind == "tabular" else step / 2
                unit_KM = ascent_KM / ascent_KM.norm(dim=1, keepdim=True).clamp(min=1e-9)
                theta_KM = (leaf_KM + size * unit_KM).detach()
            law_KR = qstar.probability(logits_of(theta_KM).detach().softmax(dim=-1), space)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return held, (law_KR @ right_R).tolist()


def _slopes(logits_KSV: Tensor, space: Space, right_R: Tensor) -> Tensor:
    """Return the gradient of the success rate in logits, per base."""
    leaf = logits_KSV.requires_grad_()
    law_KR = qstar.probability(leaf.softmax(dim=-1), space)
    return torch.autograd.grad((law_KR @ right_R).sum(), leaf)[0]


@claim(
    name="a-fifth-of-the-tokens-suffices",
    statement="Training on the 20% of tokens with the highest entropy reaches what training on all of them reaches.",
    conditions="80 exact steps of equal length from 20 bases, with a table (no shared parameters) and with a "
    "transformer; reaches: 95% of the success rate of training on all tokens; verdict: four bases in five",
    origin="paper",
    source="2506.01939, abstract",
    how="success rate after ascent through the states of highest entropy that hold 20% of the tokens, through all, "
    "and through 20% at random",
    expected="depends",
)
def a_fifth() -> Finding:
    shares: list[float] = []
    lines: list[str] = []
    means: dict[str, list[float]] = {}
    kinds: tuple[Kind, ...] = ("tabular", "transformer")
    for kind in kinds:
        every, top, random = (reached(kind, where)[1] for where in WHERE)
        shares.append(sum(t > 0.95 * e for t, e in zip(top, every, strict=True)) / len(every))
        beats = sum(t > r for t, r in zip(top, random, strict=True)) / len(top)
        means[kind] = [sum(row) / len(row) for row in (every, top, random)]
        held = [sum(row) / len(row) for row in (reached(kind, where)[0] for where in ("top", "random"))]
        lines.append(
            f"{kind}: reached in {shares[-1]:.0%} of the bases, {means[kind][1]:.3f} against {means[kind][0]:.3f} on "
            f"all and {means[kind][2]:.3f} on 20% at random (above random in {beats:.0%}); these tokens have "
            f"{held[0]:.0%} of the squared gradient in logits, random ones {held[1]:.0%}"
        )
    return Finding(
        over_draws(shares, most=0.8),
        "; ".join(lines),
        {"share": shares, "mean": means},
        plot=Plot("", list(WHERE.values()), "success rate after ascent", means),
    )
