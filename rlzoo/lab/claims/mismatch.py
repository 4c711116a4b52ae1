"""A sampler that is not quite the policy: no correction, token-level and sequence-level importance weights."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.single import Single, single
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world

Sampler = Literal["gaussian", "4-bit"]
SAMPLERS: tuple[Sampler, ...] = ("gaussian", "4-bit")
Correction = Literal["none", "token", "token <= 2", "sequence", "sequence <= 2"]
CORRECTIONS: tuple[Correction, ...] = ("none", "token", "token <= 2", "sequence", "sequence <= 2")


def _sampler_logits(kind: Sampler, logits_SV: Tensor) -> Tensor:
    """Logits with errors: normal of deviation 0.5, or rounded to 15 levels between -max and max of all logits."""
    if kind == "gaussian":
        generator = torch.Generator().manual_seed(7)
        return logits_SV + 0.5 * torch.randn(logits_SV.shape, generator=generator, dtype=torch.float64)
    level = logits_SV.abs().max() / 7
    return (logits_SV / level).round() * level


@cache
def corrected(kind: Sampler, correction: Correction, longest: int = 5) -> Single:
    """REINFORCE with the true success rate as baseline on the sampler's responses, against the true gradient."""
    at = first_update(make_world(longest=longest))
    q_SV = _sampler_logits(kind, at.logits_SV)
    space = at.space
    gap_RT = space.logp_RT(at.logp_SV) - space.logp_RT(q_SV.log_softmax(dim=1))
    level = correction.partition(" ")[0]
    if level == "none":
        gap_RT = torch.zeros_like(gap_RT)
    elif level == "sequence":
        gap_RT = gap_RT.sum(dim=1, keepdim=True).expand(gap_RT.shape)
    weight_RT = gap_RT.exp().clamp(max=2.0 if "<=" in correction else torch.inf)
    baseline = (at.old_probability_R * at.reward_R).sum()
    law_R = exact.probability(q_SV, space)
    return single(at, weight_RT * (at.reward_R - baseline)[:, None], at.true_gradient_SV, law_R)


def _listed(kind: Sampler) -> str:
    rows = {c: corrected(kind, c) for c in CORRECTIONS}
    return f"{kind}: " + ", ".join(
        f"{c} {row.bias if row.bias > 1e-15 else 0:.2g} / {row.variance:.1f}" for c, row in rows.items()
    )


TABLE = "bias / variance, relative to the squared true gradient: "


@claim(
    name="no-correction-is-biased",
    statement="Learning from a mismatched sampler without correction is biased.",
    source="derived",
    how="exact bias and variance, responses of up to 5 tokens from perturbed and from 4-bit logits",
    expected="supported",
)
def no_correction() -> Finding:
    biased = all(corrected(kind, "none").bias > 1e-4 for kind in SAMPLERS)
    numbers = {
        kind: {c: [corrected(kind, c).bias, corrected(kind, c).variance] for c in CORRECTIONS} for kind in SAMPLERS
    }
    return Finding(biased, TABLE + "; ".join(map(_listed, SAMPLERS)), numbers)


@claim(
    name="sequence-weights-are-unbiased",
    statement="The untruncated weight of the whole response removes the bias; per-token weights do not.",
    source="verl's notes on rollout correction",
    how="the same",
    expected="supported",
)
def sequence_weights() -> Finding:
    sequence = [corrected(kind, "sequence").bias for kind in SAMPLERS]
    token = [corrected(kind, "token").bias for kind in SAMPLERS]
    return Finding(
        max(sequence) < 1e-20 and min(token) > 1e-6,
        f"bias of sequence weights {max(sequence):.0e}; of token weights "
        + ", ".join(f"{b:.2g} ({kind})" for b, kind in zip(token, SAMPLERS, strict=True)),
        {"sequence": sequence, "token": token},
    )


@claim(
    name="token-weights-vary-less",
    statement="Token-level weights have less variance than the weight of the whole response.",
    source="verl's notes on rollout correction",
    how="the same",
    expected="supported",
)
def token_weights_vary_less() -> Finding:
    pairs = {kind: [corrected(kind, level).variance for level in ("token", "sequence")] for kind in SAMPLERS}
    shown = "; ".join(f"{kind}: {a:.2f} against {b:.2f}" for kind, (a, b) in pairs.items())
    return Finding(all(a < b for a, b in pairs.values()), f"variance {shown}", dict(pairs))


@claim(
    name="truncation-trades-variance-for-bias",
    statement="Truncating the whole response's weight at 2 lowers the variance and brings back some bias, "
    "wherever it acts.",
    source="verl's notes on rollout correction",
    how="the same",
    expected="supported",
)
def truncation_trades() -> Finding:
    holds, lines = [], []
    for kind in SAMPLERS:
        free, cut = corrected(kind, "sequence"), corrected(kind, "sequence <= 2")
        acts = cut.bias > 1e-20
        if acts:
            holds.append(cut.variance < free.variance and 0 < cut.bias < corrected(kind, "none").bias)
        lines.append(
            f"{kind}: variance {free.variance:.1f} to {cut.variance:.1f}, bias 0 to {cut.bias:.2g}"
            if acts
            else f"{kind}: no weight is above 2, nothing is cut"
        )
    return Finding(all(holds) if holds else None, "; ".join(lines), {})


@claim(
    name="sequence-weights-explode-with-length",
    statement="The variance of the sequence weight grows exponentially with the response's length, the token "
    "weight's does not.",
    source="derived: (1 + chi^2)^n",
    how="E[w^2] of a response of n tokens drawn token by token from one perturbed distribution, n = 1 to 64",
    expected="supported",
)
def explode() -> Finding:
    logits_V = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    p_V, q_V = logits_V.softmax(0), _sampler_logits("gaussian", logits_V[None])[0].softmax(0)
    second = (p_V.square() / q_V).sum().item()  # E_q[(p/q)^2] of one token; tokens are independent
    moments = {n: second**n for n in (1, 4, 16, 64)}
    return Finding(
        second > 1 and moments[64] > 10 * moments[16],
        f"E[w^2] of one token {second:.3f}; of a response of " + ", ".join(f"{n}: {x:.3g}" for n, x in moments.items()),
        {str(n): x for n, x in moments.items()},
    )
