"""Dynamic sampling: its expected gradient, its noise and its cost in sampled tokens."""

from __future__ import annotations

import torch

from objectives import Objective
from objectives.grpo import GRPO
from objectives.parts import SequenceSum
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.claims.groups import at_rate
from rlzoo.lab.moments import moments

RATES = (0.01, 0.05, 0.25, 0.5, 0.9)
"""Success rates of five prompts with separate tables."""
EVERY: Objective = GRPO.but(kl="none", aggregate=SequenceSum())
MIXED: Objective = EVERY.but(select="mixed")
SIZE = 8


def _mixed_share(p: float) -> float:
    return 1 - p**SIZE - (1 - p) ** SIZE


@claim(
    name="dynamic-sampling-keeps-the-direction",
    statement="Refilling with mixed groups multiplies the expected gradient by 1 / E[P(mixed)] and keeps its "
    "direction.",
    conditions="loss per prompt (not the token mean over prompts), expected gradient, no cap on refills",
    origin="lemma",
    source="derived, on 2503.14476, section 3.2",
    how="exact expected gradient over five prompts of success 0.01 to 0.9, groups of 8, per-prompt loss",
    expected="supported",
)
def keeps_direction() -> Finding:
    every = torch.stack([moments(EVERY, at_rate(p), SIZE).mean_SV for p in RATES]) / len(RATES)
    mixed = [moments(MIXED, at_rate(p), SIZE) for p in RATES]
    share = torch.tensor([found.kept for found in mixed], dtype=torch.float64)
    refilled = torch.stack([found.mean_SV for found in mixed]) * (share / share.sum())[:, None, None]
    cosine = torch.cosine_similarity(every.flatten(), refilled.flatten(), 0).item()
    scale = (refilled.norm() / every.norm()).item()
    gap = abs(scale * share.mean().item() - 1)
    return Finding(
        1 - cosine < 1e-12 and gap < 1e-9,
        f"1 - cosine {max(1 - cosine, 0.0):.0e}; scale {scale:.4f} = 1 / {share.mean():.4f}, to {gap:.0e}",
        {"cosine": cosine, "scale": scale, "mixed": share.tolist()},
    )


def _noise(prompts: int) -> tuple[float, float, float]:
    """Return noise over signal per update of one group, with all groups and with mixed ones, and the mixed share.

    Prompts are drawn from a pool with equally many of each success rate and a table per prompt. The mean gradient of a
    pool of n prompts has 1/n of each, so |E[g]|^2 falls like 1/n and E|g|^2 does not.
    """
    found = [moments(EVERY, at_rate(p, 4), SIZE) for p in RATES]
    share = sum(moments(MIXED, at_rate(p, 4), SIZE).kept for p in RATES) / len(RATES)
    sizes = [m.mean_SV.square().sum().item() for m in found]
    second = sum(m.variance + size for m, size in zip(found, sizes, strict=True)) / len(RATES)
    signal = sum(sizes) / len(RATES) / prompts
    # Refilled draws are conditioned on mixed: second moment and mean are both divided by the share.
    return second / signal - 1, second * share / signal - 1, share


@claim(
    name="dynamic-sampling-costs-its-gain",
    statement="Dynamic sampling reduces the noise per update exactly as much as it raises the sampled tokens: over "
    "many prompts the noise per token is the same.",
    conditions="each prompt has a separate table, which makes it an identity in the limit of many prompts; a pool of "
    "500 is within 10%; shared parameters are not measured",
    origin="lemma",
    source="derived, on 2503.14476, section 3.2",
    how="exact second moments, refilled over all groups of 8, prompts drawn from pools of 5 and 500 with success "
    "rates 0.01 to 0.9",
    expected="supported",
)
def costs_its_gain() -> Finding:
    lines: list[str] = []
    ratios: dict[str, tuple[float, float]] = {}
    for prompts in (5, 500):
        every, mixed, share = _noise(prompts)
        ratios[str(prompts)] = (mixed / every, mixed / every / share)
        lines.append(
            f"{prompts} prompts: noise per update x {mixed / every:.3f}, per token x {mixed / every / share:.3f}"
        )
    cost = ", ".join(f"{1 / _mixed_share(p):.2f}" for p in RATES)
    single = [moments(o, at_rate(0.01, 4), SIZE) for o in (EVERY, MIXED)]
    alone = [m.variance / m.mean_SV.square().sum().item() / m.kept for m in single]
    return Finding(
        abs(ratios["500"][1] - 1) < 0.1,
        f"{'; '.join(lines)}; rollouts per update x {cost} at p = {', '.join(f'{p:g}' for p in RATES)}. On a single "
        f"prompt (p = 0.01) refilling gains, noise per token x {alone[1] / alone[0]:.2f}: the number of mixed groups "
        "is no longer random",
        {"ratios": ratios, "single": alone[1] / alone[0]},
    )
