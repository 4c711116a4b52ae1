"""Effects of clips: which tokens lose their gradient, which ones clip-higher lets through, and min against max."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from objectives.gspo import GSPO
from objectives.parts import Clip
from rlzoo.lab import exact
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.claims.collapse import PLAIN
from rlzoo.lab.drift import drifted
from rlzoo.lab.measure import Setting, updates
from rlzoo.lab.moments import moments
from rlzoo.lab.plots import Plot
from rlzoo.lab.policy import Tabular
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import World, make_world, with_success

Surrogate = Callable[[Tensor, Tensor], Tensor]

RATIOS = torch.tensor([0.3, 0.6, 0.79, 0.81, 0.99, 1.0, 1.01, 1.19, 1.21, 1.5, 3.0], dtype=torch.float64)


def _max_clip(log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """max(r A, clip(r, 0.8, 1.2) A)"""
    r = log_ratio.exp()
    return torch.maximum(r * advantage, r.clamp(0.8, 1.2) * advantage)


def _slopes(surrogate: Surrogate, sign: float) -> Tensor:
    """d surrogate / d log-ratio at `RATIOS`."""
    leaf = RATIOS.log().requires_grad_()
    return torch.autograd.grad(surrogate(leaf, torch.full_like(RATIOS, sign)).sum(), leaf)[0]


@claim(
    name="min-clip-has-two-dead-cells",
    statement="min-clip zeroes the gradient in exactly two cells, A > 0 with r > 1+e and A < 0 with r < 1-e; "
    "elsewhere it is r A grad log pi.",
    conditions="e = 0.2, eleven ratios, both signs of the advantage",
    origin="paper",
    source="1707.06347, section 3, equation 7",
    quote="we only ignore the change in probability ratio when it would make the objective improve",
    how="slope of the project's clip at eleven ratios from 0.3 to 3 and both signs",
    expected="supported",
)
def two_dead_cells() -> Finding:
    wrong = 0
    for sign in (1.0, -1.0):
        dead = (RATIOS > 1.2) if sign > 0 else (RATIOS < 0.8)
        expected = torch.where(dead, 0, sign * RATIOS)
        wrong += int((~torch.isclose(_slopes(Clip(low=0.2, high=0.2), sign), expected, rtol=1e-12)).sum())
    return Finding(wrong == 0, f"{wrong} of 22 slopes differ", {"wrong": wrong})


@claim(
    name="max-clip-stands-still",
    statement="With max instead of min in PPO's clip the cells with a gradient are reversed: the policy does not move "
    "unless a ratio is already outside the interval.",
    conditions="e = 0.2, eleven ratios, both signs of the advantage",
    origin="often said",
    source="lecture notes on PPO",
    how="slope of max(r A, clip(r) A) at the same ratios",
    expected="supported",
)
def max_clip_stands_still() -> Finding:
    inside = (RATIOS > 0.8) & (RATIOS < 1.2)
    cells = {
        (sign, place): bool((_slopes(_max_clip, sign)[where] != 0).all())
        for sign in (1.0, -1.0)
        for place, where in {"below": RATIOS < 0.8, "inside": inside, "above": RATIOS > 1.2}.items()
    }
    reversed_outside = (
        cells[1.0, "above"] and cells[-1.0, "below"] and not cells[1.0, "below"] and not cells[-1.0, "above"]
    )
    still = not (cells[1.0, "inside"] or cells[-1.0, "inside"])
    return Finding(
        reversed_outside and still,
        f"outside the interval the cells with a gradient are {'' if reversed_outside else 'not '}reversed; inside, "
        f"where both forms are r A, the gradient is {'0' if still else 'that of min-clip: the policy moves at r = 1'}",
        {f"{'A>0' if s > 0 else 'A<0'} {place}": alive for (s, place), alive in cells.items()},
    )


def _climb(surrogate: Surrogate, steps: int = 400, rate: float = 0.05) -> list[float]:
    """Return the good choice's ratio after each step on one rollout: old probability 0.1, advantages +1 and -1/9."""
    old = torch.tensor([0.1, 0.9], dtype=torch.float64)
    advantage = torch.tensor([1.0, -1.0 / 9], dtype=torch.float64)
    logits, ratios = old.log().clone(), list[float]()
    for _ in range(steps):
        leaf = logits.requires_grad_()
        log_ratio = leaf.log_softmax(0) - old.log()
        (slope,) = torch.autograd.grad((old * surrogate(log_ratio, advantage)).sum(), leaf)
        logits = (leaf + rate * slope / slope.norm().clamp(min=1e-12)).detach()
        ratios.append(((logits.softmax(0) / old)[0]).item())
    return ratios


@claim(
    name="min-damps-max-runs",
    statement="In repeated updates on one rollout, min-clip converges and max-clip continues until the good arm is "
    "certain.",
    conditions="two-armed bandit, good arm at 0.1, 400 normalized steps on the exact expected objective",
    origin="lemma",
    source="derived: positive feedback instead of damping",
    how="400 normalized steps on the exact expected objective of a two-armed bandit, good arm at 0.1",
    expected="supported",
)
def min_damps() -> Finding:
    low, high = _climb(Clip(low=0.2, high=0.2)), _climb(_max_clip)
    rest = max(low[-100:]) - min(low[-100:])
    return Finding(
        rest < 1e-9 and low[-1] < 5 and high[-1] > 9,
        f"ratio of the good arm at the end: min {low[-1]:.2f}, max {high[-1]:.2f} (of at most 10). Min does not "
        "stop at 1.2: the bad arm has a gradient until its own ratio is below 0.8, and until then it raises the good "
        "arm's probability",
        {"min": low[-1], "max": high[-1]},
    )


def _raised(at: Situation) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ratios of right answers' tokens, their old probabilities and their sampling frequencies, each [X]."""
    space = at.space
    mask = space.mask_RT & (at.accuracy_R > 0)[:, None]
    old_RT = space.logp_RT(at.old_logits_SV.log_softmax(dim=1))
    ratio_RT = (space.logp_RT(at.logp_SV) - old_RT).exp()
    often_RT = at.old_probability_R[:, None].expand_as(ratio_RT)
    return ratio_RT[mask], old_RT.exp()[mask], often_RT[mask]


def _many_tokens(seed: int) -> World:
    """Return a world of twelve tokens with very different probabilities; answers with an odd first token are right."""
    space = enumerate_responses(12, 2)
    right_R, policy = ((space.token_RT[:, 0] % 2 == 1) & space.finished_R).double(), Tabular(space)
    return World(space, policy, with_success(policy, 2 * policy.initial(seed), right_R, 0.3), right_R, right_R)


DIRECTIONS = 8
"""Random directions pooled per base: in a single one the clip may stop no token."""
PATHS = {"expected": "along the expected gradient", "random": "in a random direction, at the same KL"}


@cache
def _rare_excess() -> dict[str, list[float]]:
    """Return, per path and base after four updates, the share of rare tokens among the good tokens that the upper clip
    stops, minus their share among all good tokens. Bases in which the clip stops no token are left out."""
    found: dict[str, list[float]] = {path: [] for path in PATHS}
    for seed in range(LEAST_DRAWS):
        setting = Setting(group_size=8, updates=4, seed=seed)
        at = list(updates(PLAIN, _many_tokens(seed), setting))[-1][0]
        kl = exact.kl_divergence(at.old_logits_SV, at.logits_SV, at.space).item()
        moved = [drifted(at, kl, 100 * seed + direction) for direction in range(DIRECTIONS)]
        for path, places in {"expected": [at], "random": moved}.items():
            ratio, old, often = (torch.cat(parts) for parts in zip(*map(_raised, places), strict=True))
            stopped = ratio > 1.2
            if stopped.any():
                rare_stopped = often[stopped & (old < 0.2)].sum() / often[stopped].sum()
                rare = often[old < 0.2].sum() / often.sum()
                found[path].append((rare_stopped - rare).item())
    return found


@claim(
    name="upper-clip-hits-rare-tokens",
    statement="Among the good tokens that the upper clip stops, rare ones (old probability below 0.2) are "
    "over-represented.",
    conditions="20 bases of 12 tokens; the result depends on the path of the policy from the sampler",
    origin="paper",
    source="2503.14476, section 3.1 and figure 3a",
    quote="the upper clipping threshold indeed restricts the probability increase of low-probability 'exploration' "
    "tokens",
    how="tokens of right answers with ratio above 1.2, weighted by sampling frequency, 20 bases, the policy moved by "
    "four updates along E[g] or at random",
    expected="depends",
)
def hits_rare_tokens() -> Finding:
    found = _rare_excess()
    shares = {path: sum(e > 0 for e in row) / len(row) for path, row in found.items()}
    text = "; ".join(
        f"{PATHS[path]}: over-represented in {shares[path]:.0%} of {len(row)} bases, on average by "
        f"{sum(row) / len(row):+.0%}"
        for path, row in found.items()
    )
    return Finding(over_draws(list(shares.values())), text, {"excess": found, "share": shares})


@claim(
    name="clip-higher-lets-rare-tokens-grow",
    statement="For a token of old probability 0.01 the clip of 0.2 allows at most 0.012; for one of 0.9 it never acts.",
    conditions="A > 0, one token, e = 0.2",
    origin="paper",
    source="2503.14476, section 3.1",
    quote="the upper clipping threshold indeed restricts the probability increase of low-probability 'exploration' "
    "tokens",
    how="largest probability with a nonzero gradient at A > 0, from the slope of the project's clip",
    expected="supported",
)
def rare_tokens_grow() -> Finding:
    reach: dict[str, float] = {}
    for old in (0.01, 0.9):
        new = torch.linspace(old, 1.0, 100001, dtype=torch.float64)
        leaf = (new / old).log().requires_grad_()
        gain = Clip(low=0.2, high=0.2)(leaf, torch.ones_like(leaf)).sum()
        reach[f"{old:g}"] = new[torch.autograd.grad(gain, leaf)[0] != 0].max().item()
    return Finding(
        abs(reach["0.01"] - 0.012) < 2e-5 and reach["0.9"] == 1.0,
        f"0.01 can grow to {reach['0.01']:.4f}, 0.9 to {reach['0.9']:.4f}",
        reach,
    )


@claim(
    name="gspo-clips-more",
    statement="At their default edges GSPO stops far more tokens than GRPO, at the same policy.",
    conditions="second update, steps of 0.01 to 0.3, groups of 8, responses of at most 4 tokens; the edges were "
    "chosen for responses of thousands",
    origin="paper",
    source="2507.18071, section 5.2 (two orders of magnitude)",
    how="exact clip fraction at the second update with steps of 0.01 to 0.3 in parameters, groups of 8",
    expected="supported",
)
def gspo_clips_more() -> Finding:
    rows: list[str] = []
    fractions: list[tuple[float, float]] = []
    for step in (0.01, 0.1, 0.3):
        at = list(updates(PLAIN, make_world(), Setting(updates=2, step=step)))[-1][0]
        sequence, token = moments(GSPO, at, 8).clip_fraction, moments(PLAIN, at, 8).clip_fraction
        fractions.append((sequence, token))
        rows.append(f"step {step:g}: {sequence:.1%} against {token:.1%}")
    return Finding(all(a > b for a, b in fractions), "; ".join(rows), {"fractions": fractions})


OLD = (0.001, 0.01, 0.1, 0.5, 0.9)
SHIFT = 0.1


def moved_until_dead(old: float) -> tuple[float, float]:
    """Return the change of a good token's probability at which its gradient vanishes: under a ratio clip of 0.2, and
    under a mask where pi - old exceeds `SHIFT` (DPPO, total variation); 1 - old if it never vanishes."""
    new = torch.linspace(old, 1.0, 200001, dtype=torch.float64)
    leaf = (new / old).log().requires_grad_()
    alive = torch.autograd.grad(Clip(low=0.2, high=0.2)(leaf, torch.ones_like(leaf)).sum(), leaf)[0] != 0
    return new[alive].max().item() - old, new[new - old <= SHIFT].max().item() - old


@cache
def _dead_and_rare() -> dict[str, list[float]]:
    """Return, per base, the share of rare tokens (old probability below 0.2) in the raised good ones that a rule stops.

    The mask's threshold is set so that both rules stop the same share of sampled tokens.
    """
    found: dict[str, list[float]] = {"ratio clip": [], "TV mask": [], "all moved up": []}
    for seed in range(LEAST_DRAWS):
        at = first_update(_many_tokens(seed))
        parts = [_raised(drifted(at, 0.3, 100 * seed + direction)) for direction in range(DIRECTIONS)]
        ratio, old, often = (torch.cat(column) for column in zip(*parts, strict=True))
        up = ratio > 1
        ratio, old, often = ratio[up], old[up], often[up]
        shift = (ratio - 1) * old
        order = shift.argsort(descending=True)
        stopped = often[order].cumsum(0) <= often[ratio > 1.2].sum()
        masked = torch.zeros_like(stopped).index_put((order,), stopped)
        for name, where in (("ratio clip", ratio > 1.2), ("TV mask", masked), ("all moved up", old > 0)):
            found[name].append((often[where & (old < 0.2)].sum() / often[where].sum()).item())
    return found


@claim(
    name="ratio-clips-punish-rare-tokens",
    statement="A ratio clip stops rare tokens after a small change of probability, and frequent ones after a large "
    "change or never; a mask on the change itself (DPPO) has the same limit for both.",
    conditions="clip 0.2 and a mask at a change of 0.1, A > 0; in 20 bases of 12 tokens moved at random, both rules "
    "stop the same share of sampled tokens",
    origin="paper",
    source="2602.04879, abstract",
    quote="updates to low-probability tokens are aggressively over-penalized",
    how="largest change with a nonzero gradient at five old probabilities; share of rare tokens among those stopped",
    expected="supported",
)
def ratio_clips_punish() -> Finding:
    reach = {old: moved_until_dead(old) for old in OLD}
    clip, mask = ([row[i] for row in reach.values()] for i in (0, 1))
    rare = _dead_and_rare()
    share = sum(c > m for c, m in zip(rare["ratio clip"], rare["TV mask"], strict=True)) / LEAST_DRAWS
    means = {name: sum(row) / len(row) for name, row in rare.items()}
    alike = max(mask) - min(mask) < 1e-3 and clip == sorted(clip[:4]) + clip[4:]
    return Finding(
        over_draws([share]) if alike else False,
        f"change at which a good token stops, at old probability {', '.join(f'{o:g}' for o in OLD)}: clip "
        f"{', '.join(f'{x:.4f}' for x in clip)} (0.9 never stops), mask {', '.join(f'{x:.2f}' for x in mask)}; rare "
        f"tokens are {means['ratio clip']:.0%} of those that the clip stops, {means['TV mask']:.0%} of those that the "
        f"mask stops and {means['all moved up']:.0%} of all raised ones; the clip's share is larger in {share:.0%} of "
        "the bases",
        {"old": OLD, "clip": clip, "mask": mask, "rare": rare},
        arithmetic=[f"clip: 0.2 x {o:g} = {min(0.2 * o, 1 - o):.4f}" for o in OLD],
        plot=Plot("old probability", OLD, "change at which it stops", {"clip": clip, "mask": mask}, log_x=True),
    )
