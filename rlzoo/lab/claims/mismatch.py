"""A sampler that differs from the policy: no correction, token-level and sequence-level importance weights.

w_t = pi(y_t | s_t) / q(y_t | s_t)      w = prod_t w_t      q: the sampler
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from objectives.parts import Clip
from rlzoo.lab import exact
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.plots import Plot
from rlzoo.lab.single import Single, single
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.world import make_world

Sampler = Literal["gaussian", "4-bit"]
SAMPLERS: tuple[Sampler, ...] = ("gaussian", "4-bit")
Correction = Literal["none", "token", "token <= 2", "sequence", "sequence <= 2"]
CORRECTIONS: tuple[Correction, ...] = ("none", "token", "token <= 2", "sequence", "sequence <= 2")
ERROR = 0.5
DRAWS = tuple(range(LEAST_DRAWS))


def sampler_logits(kind: Sampler, logits_SV: Tensor, error: float = ERROR, draw: int = 7) -> Tensor:
    """Return logits with normal errors of standard deviation `error`, or rounded to 15 levels in -max .. max."""
    if kind == "gaussian":
        generator = torch.Generator().manual_seed(draw)
        return logits_SV + error * torch.randn(logits_SV.shape, generator=generator, dtype=torch.float64)
    level = logits_SV.abs().max() / 7
    return (logits_SV / level).round() * level


@cache
def _situation() -> Situation:
    return first_update(make_world(longest=5))


def weighted(q_SV: Tensor, weight_RT: Tensor) -> Single:
    """Return the moments of weighted REINFORCE on the sampler's responses; baseline: the true success rate."""
    at = _situation()
    baseline = (at.old_probability_R * at.reward_R).sum()
    law_R = exact.probability(q_SV, at.space)
    return single(at, weight_RT * (at.reward_R - baseline)[:, None], at.true_gradient_SV, law_R)


def log_weights(q_SV: Tensor) -> Tensor:
    """log pi_t - log q_t of every token of every response, [R, T]."""
    at = _situation()
    return at.space.logp_RT(at.logp_SV) - at.space.logp_RT(q_SV.log_softmax(dim=1))


@cache
def corrected(kind: Sampler, correction: Correction, error: float = ERROR, draw: int = 7) -> Single:
    """Return the moments with one kind of weight. `error` and `draw` apply to the gaussian sampler only."""
    q_SV = sampler_logits(kind, _situation().logits_SV, error, draw)
    gap_RT = log_weights(q_SV)
    level = correction.partition(" ")[0]
    if level == "none":
        gap_RT = torch.zeros_like(gap_RT)
    elif level == "sequence":
        gap_RT = gap_RT.sum(dim=1, keepdim=True).expand(gap_RT.shape)
    return weighted(q_SV, gap_RT.exp().clamp(max=2.0 if "<=" in correction else torch.inf))


def _mean(correction: Correction, error: float = ERROR) -> tuple[float, float]:
    """Return the means of bias and variance over the draws."""
    rows = [corrected("gaussian", correction, error, draw) for draw in DRAWS]
    return sum(r.bias for r in rows) / len(rows), sum(r.variance for r in rows) / len(rows)


def _listed() -> str:
    rows = {c: _mean(c) for c in CORRECTIONS}
    shown = ", ".join(f"{c} {bias if bias > 1e-15 else 0:.2g} / {variance:.1f}" for c, (bias, variance) in rows.items())
    bits = {c: corrected("4-bit", c) for c in CORRECTIONS}
    coarse = ", ".join(f"{c} {r.bias if r.bias > 1e-15 else 0:.2g} / {r.variance:.1f}" for c, r in bits.items())
    return f"errors of {ERROR:g} (mean of {len(DRAWS)} draws): {shown}; 4-bit: {coarse}"


TABLE = "bias / variance, relative to the squared true gradient: "


@claim(
    name="no-correction-is-biased",
    statement="Learning from a mismatched sampler without correction is biased.",
    conditions="sampler's logits off by normal errors of 0.1 to 0.5 (20 draws each), or rounded to 4 bits",
    origin="lemma",
    source="derived",
    how="exact bias and variance of REINFORCE with the true success rate as baseline, responses of up to 5 tokens",
    expected="supported",
)
def no_correction() -> Finding:
    biases = {e: [corrected("gaussian", "none", e, draw).bias for draw in DRAWS] for e in (0.1, 0.3, 0.5)}
    coarse = corrected("4-bit", "none").bias
    lowest = "; ".join(f"errors of {e:g}: bias {min(row):.2g} to {max(row):.2g}" for e, row in biases.items())
    return Finding(
        min(coarse, *(min(row) for row in biases.values())) > 1e-6,
        f"{lowest}, in {len(DRAWS)} of {len(DRAWS)} draws above 0. {TABLE}{_listed()}",
        {"bias": {str(e): row for e, row in biases.items()}, "4-bit": coarse},
        plot=Plot("draw", DRAWS, "squared bias", {f"errors of {e:g}": row for e, row in biases.items()}, log_y=True),
    )


@claim(
    name="sequence-weights-are-unbiased",
    statement="The untruncated weight of the whole response removes the bias; per-token weights do not.",
    conditions="sampler's logits off by normal errors of 0.5 (20 draws), or rounded to 4 bits",
    origin="often said",
    source="verl's notes on rollout correction",
    how="exact bias of token-level and of whole-response weights, responses of up to 5 tokens",
    expected="supported",
)
def sequence_weights() -> Finding:
    sequence = [corrected("gaussian", "sequence", draw=draw).bias for draw in DRAWS]
    token = [corrected("gaussian", "token", draw=draw).bias for draw in DRAWS]
    coarse = [corrected("4-bit", level).bias for level in ("sequence", "token")]
    return Finding(
        max(*sequence, coarse[0]) < 1e-20 and min(*token, coarse[1]) > 1e-6,
        f"largest bias of whole-response weights {max(*sequence, coarse[0]):.0e}; of token weights {min(token):.2g} to "
        f"{max(token):.2g} in {len(DRAWS)} draws, {coarse[1]:.2g} with 4 bits",
        {"sequence": sequence, "token": token, "4-bit": coarse},
        plot=Plot("draw", DRAWS, "squared bias", {"token weights": token}, log_y=True),
    )


@claim(
    name="token-weights-vary-less",
    statement="Token-level weights have less variance than the weight of the whole response.",
    conditions="20 draws of the sampler's errors at each of four sizes; true for large weights, undecided for weights "
    "near 1",
    origin="often said",
    source="verl's notes on rollout correction",
    how="exact variance of the gradient with token-level and with whole-response weights, responses of up to 5 "
    "tokens, errors of 0.1, 0.3, 0.5, 1",
    expected="depends",
)
def token_weights_vary_less() -> Finding:
    shares: dict[float, float] = {}
    for error in (0.1, 0.3, 0.5, 1.0):
        pairs = [
            [corrected("gaussian", level, error, draw).variance for level in ("token", "sequence")] for draw in DRAWS
        ]
        shares[error] = sum(a < b for a, b in pairs) / len(pairs)
    coarse = [corrected("4-bit", level).variance for level in ("token", "sequence")]
    text = ", ".join(f"{share:.0%} at errors of {error:g}" for error, share in shares.items())
    return Finding(
        over_draws(list(shares.values()), most=0.8),
        f"token weights vary less in {text} ({len(DRAWS)} draws each); 4-bit {coarse[0]:.2f} against {coarse[1]:.2f}",
        {"errors": list(shares), "share": list(shares.values()), "4-bit": coarse},
        plot=Plot("size of the sampler's errors", list(shares), "share of draws", {"token": list(shares.values())}),
    )


@claim(
    name="truncation-trades-variance-for-bias",
    statement="Truncating the whole response's weight at 2 lowers the variance and adds bias wherever it acts.",
    conditions="20 draws of normal errors of 0.5 in the sampler's logits; the 4-bit sampler has no weight above 2",
    origin="often said",
    source="verl's notes on rollout correction",
    how="exact bias and variance with and without the cap, responses of up to 5 tokens",
    expected="supported",
)
def truncation_trades() -> Finding:
    acts, holds = 0, 0
    for draw in DRAWS:
        free, cut = (corrected("gaussian", c, draw=draw) for c in ("sequence", "sequence <= 2"))
        acts += cut.bias > 1e-20
        holds += cut.variance < free.variance and 0 < cut.bias < corrected("gaussian", "none", draw=draw).bias
    (_, free_variance), (bias, variance) = _mean("sequence"), _mean("sequence <= 2")
    coarse = corrected("4-bit", "sequence <= 2").bias
    return Finding(
        over_draws([holds / acts]) if acts >= LEAST_DRAWS // 2 else None,
        f"the cap acts in {acts} of {len(DRAWS)} draws; in {holds} of these it lowers the variance and adds less bias "
        f"than no correction has; on average variance {free_variance:.1f} to {variance:.1f}, bias 0 to {bias:.2g}; "
        f"4-bit: no weight is above 2 (bias {max(coarse, 0):.0e})",
        {"acts": acts, "holds": holds, "variance": [free_variance, variance], "bias": bias},
    )


@claim(
    name="sequence-weights-explode-with-length",
    statement="The variance of the sequence weight grows exponentially with the response's length, the token weight's "
    "does not.",
    conditions="tokens drawn independently from one perturbed distribution",
    origin="lemma",
    source="derived: E[w^2] = (1 + chi^2)^n",
    how="E[w^2] of a response of n tokens drawn token by token from one perturbed distribution, n = 1 to 64",
    expected="supported",
)
def explode() -> Finding:
    logits_V = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    p_V, q_V = logits_V.softmax(0), sampler_logits("gaussian", logits_V[None])[0].softmax(0)
    second = (p_V.square() / q_V).sum().item()  # E_q[(p/q)^2] of one token; tokens are independent
    moments = {n: second**n for n in (1, 4, 16, 64)}
    return Finding(
        second > 1 and moments[64] > 10 * moments[16],
        f"E[w^2] of one token {second:.3f}; of a response of " + ", ".join(f"{n}: {x:.3g}" for n, x in moments.items()),
        {str(n): x for n, x in moments.items()},
    )


ICEPOP = (0.5, 5.0)
RESPONSES = (4, 64, 1024)


@cache
def masked_or_cut(error: float, draw: int) -> tuple[Single, Single]:
    """Return the moments with token weights that are 0 outside [0.5, 5] (IcePop), and with weights cut at 5."""
    q_SV = sampler_logits("gaussian", _situation().logits_SV, error, draw)
    weight_RT = log_weights(q_SV).exp()
    inside_RT = (weight_RT >= ICEPOP[0]) & (weight_RT <= ICEPOP[1])
    return weighted(q_SV, torch.where(inside_RT, weight_RT, 0)), weighted(q_SV, weight_RT.clamp(max=ICEPOP[1]))


@claim(
    name="masking-beats-truncation",
    statement="Discarding tokens with a weight outside [0.5, 5] (IcePop) has a smaller error than truncating weights "
    "at 5.",
    conditions="20 draws of normal errors of 0.5 and 1 in the sampler's logits; error of the mean over N responses, N "
    "= 4, 64, 1024: squared bias + variance / N",
    origin="paper",
    source="2510.18855, section on IcePop",
    how="exact bias and variance of the gradient with either weight, responses of up to 5 tokens, share of draws "
    "where the mask's error is smaller",
    expected="depends",
)
def masking_beats_truncation() -> Finding:
    shares: dict[float, list[float]] = {}
    lines: list[str] = []
    for error in (0.5, 1.0):
        pairs = [masked_or_cut(error, draw) for draw in DRAWS]
        shares[error] = [
            sum(m.bias + m.variance / n < t.bias + t.variance / n for m, t in pairs) / len(pairs) for n in RESPONSES
        ]
        masked, cut = (
            (sum(x.bias for x in column) / len(column), sum(x.variance for x in column) / len(column))
            for column in zip(*pairs, strict=True)
        )
        lines.append(
            f"errors of {error:g}: bias / variance {masked[0]:.2f} / {masked[1]:.1f} masked, {cut[0]:.2f} / "
            f"{cut[1]:.1f} truncated; the mask's error is smaller in {', '.join(f'{s:.0%}' for s in shares[error])} of "
            f"the draws at N = {', '.join(map(str, RESPONSES))}"
        )
    return Finding(
        over_draws([s for row in shares.values() for s in row], most=0.75),
        "; ".join(lines) + ". The mask has more bias and less variance, like a lower cap",
        {"responses": RESPONSES, "share": shares},
        plot=Plot(
            "responses",
            RESPONSES,
            "share of draws where the mask's error is smaller",
            {f"errors of {e:g}": row for e, row in shares.items()},
            log_x=True,
        ),
    )


def dead_at_first(error: float, draw: int) -> tuple[float, float, float]:
    """First update with ratios to the sampler (bypass): return the share of sampled tokens that the clip of 0.2 stops,
    and two cosines with the true gradient: of bypass, and of recomputed ratios times old / sampler.

    Baseline: the true success rate. At this update the policy is the old one, so recomputed ratios are 1.
    """
    at = _situation()
    q_SV = sampler_logits("gaussian", at.logits_SV, error, draw)
    log_RT = log_weights(q_SV)
    centred_RT = (at.reward_R - (at.old_probability_R * at.reward_R).sum())[:, None].expand_as(log_RT)
    leaf_RT = log_RT.clone().requires_grad_()
    (slope_RT,) = torch.autograd.grad(Clip(low=0.2, high=0.2)(leaf_RT, centred_RT).sum(), leaf_RT)
    law_R = exact.probability(q_SV, at.space)
    mask_RT = at.space.mask_RT
    often_RT = law_R[:, None] * mask_RT
    dead = (often_RT * (slope_RT == 0)).sum() / often_RT.sum()
    bypass = single(at, slope_RT, at.true_gradient_SV, law_R).cosine
    return dead.item(), bypass, weighted(q_SV, log_RT.exp()).cosine


@claim(
    name="a-bypassed-old-policy-clips-mismatch",
    statement="With ratios to the sampler's log-probs, instead of recomputed ones times the weight old / sampler, the "
    "clip stops tokens before the policy has moved, and the gradient is usually further from the true one.",
    conditions="first update, clip 0.2, token weights, 20 draws of normal errors of 0.3, 0.5, 1 in the sampler's "
    "logits; without a clip the two are the same: (pi / old)(old / q) = pi / q",
    origin="lemma",
    source="derived; the two modes of verl's rollout correction",
    how="exact share of sampled tokens that are stopped, and cosines of both expected gradients, responses of up to 5 "
    "tokens",
    expected="supported",
)
def bypass_clips() -> Finding:
    rows = {error: [dead_at_first(error, draw) for draw in DRAWS] for error in (0.3, 0.5, 1.0)}
    means = {error: [sum(column) / len(row) for column in zip(*row, strict=True)] for error, row in rows.items()}
    shares = [sum(bypass < recomputed for _, bypass, recomputed in row) / len(row) for row in rows.values()]
    stopped = [sum(dead > 0 for dead, _, _ in row) / len(row) for row in rows.values()]
    text = "; ".join(
        f"errors of {error:g}: {dead:.0%} of the tokens stopped, cosine {bypass:.3f} bypassed, {recomputed:.3f} "
        f"recomputed (further in {share:.0%})"
        for (error, (dead, bypass, recomputed)), share in zip(means.items(), shares, strict=True)
    )
    return Finding(
        over_draws([*shares, *stopped], most=0.75),
        text,
        {"error": list(rows), "mean": list(means.values()), "share": shares},
        arithmetic=["recomputed, first update: pi / old = 1, inside [0.8, 1.2]; bypassed: pi / q = old / q, anywhere"],
        plot=Plot(
            "size of the sampler's errors",
            list(rows),
            "mean over draws",
            {name: [row[i] for row in means.values()] for i, name in enumerate(("stopped", "bypassed", "recomputed"))},
        ),
    )
