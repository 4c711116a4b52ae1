"""Learning from another policy's samples: importance ratios, reuse of responses, baselines, coin-flip rewards."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from objectives.parts import Clip
from rlzoo.lab import exact
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.drift import climbed, drifted
from rlzoo.lab.plots import Plot
from rlzoo.lab.reuse import Reuse, simulate
from rlzoo.lab.single import single
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.world import make_world

DRAWS = range(LEAST_DRAWS)
DISTANCES = (0.02, 0.1, 0.3)
RATIOS = ("token", "none", "normalized", "response")
PATHS = {"climbed": "along the true gradient", "drifted": "in a random direction"}


def log_ratios(at: Situation) -> dict[str, Tensor]:
    """Return the log of each kind of weight at every token, [R, T], by name."""
    space = at.space
    token_RT = space.logp_RT(at.logp_SV) - space.logp_RT(at.old_logits_SV.log_softmax(dim=1))
    whole_RT = token_RT.sum(dim=1, keepdim=True).expand_as(token_RT)
    mean_RT = whole_RT / space.length_R[:, None]
    return {"token": token_RT, "none": torch.zeros_like(token_RT), "normalized": mean_RT, "response": whole_RT}


@cache
def _base(seed: int) -> Situation:
    return first_update(make_world(seed=seed))


@cache
def cosines(path: str, kl: float) -> dict[str, list[float]]:
    """Return the cosine of E_old[w (r - p_old) grad log pi] with the true gradient, per draw and kind of weight."""
    found: dict[str, list[float]] = {name: [] for name in RATIOS}
    for draw in DRAWS:
        at = climbed(_base(draw), kl) if path == "climbed" else drifted(_base(draw), kl, draw)
        centred_R1 = (at.reward_R - (at.old_probability_R * at.reward_R).sum())[:, None]
        true_SV = at.true_gradient_SV
        for name, log_RT in log_ratios(at).items():
            found[name].append(single(at, log_RT.exp() * centred_R1, true_SV).cosine)
    return found


def _mean(row: list[float]) -> float:
    return sum(row) / len(row)


@claim(
    name="gspo-token-ratio",
    statement="Off-policy, the token ratio is not an importance weight of a response: with GSPO's length-normalized "
    "ratio the gradient is usually closer to the true one, and with the ratio of the whole response it is exact.",
    conditions="no clip, tokens summed, baseline p_old, tabular policies of up to 4 tokens, three distances in KL, on "
    "two paths; usually: in 15 draws of 20",
    origin="paper",
    source="2507.18071, section 1",
    quote="the fundamental misapplication and invalidation of importance sampling weights",
    how="exact cosine of the expected gradient with the true one over 20 bases: token ratio, no ratio, GSPO's, whole "
    "response",
    expected="supported",
)
def token_ratio() -> Finding:
    shares: list[float] = []
    lines: list[str] = []
    below_none: list[int] = []
    means: dict[str, dict[str, list[float]]] = {path: {name: [] for name in RATIOS} for path in PATHS}
    exact_gap = 0.0
    for path, label in PATHS.items():
        for kl in DISTANCES:
            found = cosines(path, kl)
            for name in RATIOS:
                means[path][name].append(_mean(found[name]))
            shares.append(_mean([float(g > t) for g, t in zip(found["normalized"], found["token"], strict=True)]))
            below_none.append(sum(t < n for t, n in zip(found["token"], found["none"], strict=True)))
            exact_gap = max(exact_gap, 1 - min(found["response"]))
            listed = ", ".join(f"{name} {_mean(found[name]):.3f}" for name in RATIOS)
            lines.append(f"{label}, KL {kl:g}: {listed} (GSPO above token in {shares[-1]:.0%})")
    usually = over_draws(shares, most=0.75)
    return Finding(
        usually if exact_gap < 1e-9 else False,
        "mean cosine " + "; ".join(lines) + f". The token ratio's cosine is below that of no ratio in "
        f"{min(below_none)} to {max(below_none)} of {LEAST_DRAWS} draws",
        {"distances": DISTANCES, "mean cosine": means, "share": shares, "token below none": below_none},
        arithmetic=[
            "two tokens with ratios 2 and 1/8: a response's weight is 2 x 1/8 = 1/4, GSPO's (1/4)^(1/2) = 1/2",
            "E_old[(pi / old)(y) f(y)] = E_pi[f(y)]: true of the response's weight, not of a token's own ratio",
            *lines,
        ],
        plot=Plot("KL(old || policy), nats", DISTANCES, "mean cosine, along the true gradient", means["climbed"]),
    )


@claim(
    name="reuse-is-not-fresh-samples",
    statement="N updates on the same M responses gain less than N updates on M fresh responses each, and more than one "
    "update on M responses.",
    conditions="PPO-clip, M = 8, N = 4, one prompt, steps of 0.5 on the logits; the fresh arm samples N times as many "
    "tokens as the other two",
    origin="often said",
    source="lecture notes: off-policy GRPO is N M responses in N updates, not M responses N times",
    how="success rate after the updates, mean over 2000 simulated rollouts from one base, with 95% intervals; then "
    "all arms at equal sampled tokens",
    expected="supported",
)
def reuse() -> Finding:
    arms = {
        "N M fresh, once each": simulate(Reuse(fresh=True)),
        "M reused N times": simulate(Reuse(fresh=False)),
        "M once": simulate(Reuse(fresh=True, updates=1)),
        "M reused N times, N rollouts": simulate(Reuse(fresh=False, rollouts=4)),
    }
    fresh, reused, once, equal = arms.values()
    text = ", ".join(f"{name} {arm.mean:.3f} ±{arm.half_width:.3f}" for name, arm in arms.items())
    clear = [reused.high < fresh.low, once.high < reused.low]
    against = [reused.low > fresh.high, once.low > reused.high]
    return Finding(
        True if all(clear) else "depends" if any(against) else None,
        f"success rate after the updates, from 0.25: {text}. At equal sampled tokens the reused arm takes 16 updates "
        f"and the fresh one 4; the reused arm is {'ahead' if equal.low > fresh.high else 'not ahead'}",
        {name: [arm.low, arm.mean, arm.high] for name, arm in arms.items()},
        arithmetic=[
            "sampled responses: 4 x 8 = 32 fresh, 8 reused, 8 once, 4 x 8 = 32 reused in 4 rollouts",
            "4 small steps on the same 8: sum 4 g, variance 16 s^2 / 8 = 2 s^2; on fresh ones 4 s^2 / 8 = s^2 / 2",
            *(f"{name}: {arm.low:.4f} to {arm.high:.4f}" for name, arm in arms.items()),
        ],
        plot=Plot("", list(arms), "success rate", {"mean": [arm.mean for arm in arms.values()]}),
    )


REWARDS = (0.2, 0.4, 0.5, 0.6, 0.8)
OFFSETS = (-0.3, -0.1, -0.01, 0.01, 0.1)


def off_policy_flow(offset: float, steps: int = 4000, rate: float = 2.0) -> tuple[Tensor, Tensor]:
    """Follow E_mu[(r - V) grad log pi] on five arms, V = E_mu[r] + offset: return mu and the final policy, [K, 5].

    With a = mu (r - V) the flow of the logits is a - pi sum(a) (2506.20520, section 3); pi starts at mu.
    """
    draws = [torch.Generator().manual_seed(draw) for draw in DRAWS]
    mu_KA = torch.stack([torch.randn(len(REWARDS), generator=g, dtype=torch.float64).softmax(0) for g in draws])
    reward_A = torch.tensor(REWARDS, dtype=torch.float64)
    a_KA = mu_KA * (reward_A - ((mu_KA @ reward_A)[:, None] + offset))
    logits_KA = mu_KA.log()
    for _ in range(steps):
        logits_KA = logits_KA + rate * (a_KA - logits_KA.softmax(1) * a_KA.sum(dim=1, keepdim=True))
    return mu_KA, logits_KA.softmax(1)


@claim(
    name="a-baseline-below-the-value-is-safe",
    statement="Off-policy without a ratio, a baseline below the sampler's mean reward improves the policy, and one far "
    "below it keeps several answers; a baseline above it leaves a single answer.",
    conditions="exact flow on five arms with rewards 0.2 to 0.8, 20 samplers, no ratio; on-policy the baseline "
    "changes nothing",
    origin="paper",
    source="2506.20520, abstract",
    quote="when the baseline V lower-bounds the expected reward, the algorithm enjoys a policy improvement guarantee",
    how="policy at the end of the flow of E_mu[(r - V) grad log pi] from mu, V = E_mu[r] - 0.3 to + 0.1: reward "
    "gained, and answers above 1%",
    expected="supported",
)
def baseline_below() -> Finding:
    reward_A = torch.tensor(REWARDS, dtype=torch.float64)
    rows: dict[float, tuple[float, float, float, float]] = {}
    for offset in OFFSETS:
        mu_KA, end_KA = off_policy_flow(offset)
        gain_K, kept_K = (end_KA - mu_KA) @ reward_A, (end_KA > 0.01).sum(dim=1).double()
        better, alone = (gain_K > 0).double().mean().item(), (kept_K == 1).double().mean().item()
        rows[offset] = (gain_K.mean().item(), better, kept_K.mean().item(), alone)
    text = "; ".join(
        f"V = mean {offset:+g}: reward {gain:+.3f}, higher in {better:.0%}, {kept:.1f} answers left, one in {alone:.0%}"
        for offset, (gain, better, kept, alone) in rows.items()
    )
    improves = [row[1] for offset, row in rows.items() if offset < 0]
    return Finding(
        over_draws([*improves, *(row[3] for offset, row in rows.items() if offset > 0), 1 - rows[OFFSETS[0]][3]]),
        text,
        {str(offset): row for offset, row in rows.items()},
        plot=Plot("baseline minus mean reward", OFFSETS, "", {"answers left": [row[2] for row in rows.values()]}),
    )


def coin_flip_gradient(at: Situation, clip: bool) -> Tensor:
    """Return E[g] for advantages of +1 or -1 by a fair coin, independent of the response: [S, V]."""
    log_RT = log_ratios(at)["token"]
    slope_RT = torch.zeros_like(log_RT)
    for sign in (1.0, -1.0):
        leaf_RT = log_RT.clone().requires_grad_()
        advantage_RT = torch.full_like(leaf_RT, sign)
        gain = Clip(low=0.2, high=0.2)(leaf_RT, advantage_RT) if clip else leaf_RT.exp() * advantage_RT
        slope_RT += torch.autograd.grad(gain.sum(), leaf_RT)[0] / 2
    return single(at, slope_RT, at.true_gradient_SV).mean_SV


@claim(
    name="coin-flip-rewards-learn-through-the-clip",
    statement="Coin-flip rewards have an expected gradient of 0 until a ratio leaves the clip's interval; outside it "
    "the clip's gradient moves the ratio back.",
    conditions="PPO-clip 0.2, advantages +1 and -1 equally often, 20 bases moved by KL 0.02, 0.1, 0.3 in a random "
    "direction; without a clip it is 0 at every ratio",
    origin="paper",
    source="2506.10947, section 4 (the clipping bias)",
    how="exact E[g] with and without the clip, on-policy and moved; its inner products with the gradient of KL(old || "
    "pi) and with the gradient of the entropy",
    expected="supported",
)
def coin_flip() -> Finding:
    zero = max(coin_flip_gradient(_base(draw), clip=True).norm().item() for draw in DRAWS)
    back: list[float] = []
    sharper: list[float] = []
    for kl in DISTANCES:
        returns, falls, acts = 0, 0, 0
        for draw in DRAWS:
            at = drifted(_base(draw), kl, draw)
            zero = max(zero, coin_flip_gradient(at, clip=False).norm().item())
            found_SV = coin_flip_gradient(at, clip=True)
            if found_SV.norm() < 1e-12:
                continue
            acts += 1
            leaf_SV = at.logits_SV.clone().requires_grad_()
            distance = exact.kl_divergence(at.old_logits_SV, leaf_SV, at.space)
            (away_SV,) = torch.autograd.grad(distance, leaf_SV)
            logp_SV = leaf_SV.log_softmax(dim=1)
            visits_S = exact.visits(at.old_logits_SV.softmax(dim=1), at.space)
            entropy = -(visits_S * (logp_SV.exp() * logp_SV).sum(dim=1)).sum()
            (entropy_SV,) = torch.autograd.grad(entropy, leaf_SV)
            returns += bool((found_SV * away_SV).sum() < 0)
            falls += bool((found_SV * entropy_SV).sum() < 0)
        back.append(returns / acts)
        sharper.append(falls / acts)
    shown = "; ".join(
        f"KL {kl:g}: back to the sampler in {b:.0%}, entropy lowered in {s:.0%}"
        for kl, b, s in zip(DISTANCES, back, sharper, strict=True)
    )
    return Finding(
        over_draws(back) if zero < 1e-12 else False,
        f"|E[g]| without a clip, or on-policy, {zero:.0e}; with a clip, in the draws where it acts: {shown}. So the "
        "clip favours the sampler's behaviour",
        {"distances": DISTANCES, "back": back, "entropy lowered": sharper},
        plot=Plot("KL(old || policy), nats", DISTANCES, "share of draws", {"back": back, "entropy lowered": sharper}),
    )
