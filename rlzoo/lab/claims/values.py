"""Bias and variance along lambda, from temporal difference to Monte Carlo, with exact, noisy and zero values."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch

from advantages import GAE, RewardToGo, at_last_token
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.claims.groups import STD, with_advantage
from rlzoo.lab.measure import Critic, critic_values
from rlzoo.lab.moments import moments
from rlzoo.lab.plots import Plot
from rlzoo.lab.single import Single, single
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import World, make_world

LAMBDAS = (0.0, 0.5, 0.9, 0.95, 1.0)
CRITICS: tuple[Critic, ...] = ("exact", "noisy", "zero")
ERRORS = (0.05, 0.1, 0.15, 0.3, 0.5)
DRAWS = tuple(range(LEAST_DRAWS))


@cache
def _world() -> World:
    return make_world(longest=5)


@cache
def at_lambda(lam: float, critic: Critic, error: float = 0.3, draw: int = 0) -> Single:
    """Return the moments of the single-response actor gradient with GAE(1, lambda); responses of at most 5 tokens."""
    at = first_update(_world(), critic_values(_world(), critic, seed=draw, error=error))
    space = at.space
    reward_RT = at_last_token(at.reward_R, space.mask_RT)
    gae = GAE(gamma=1.0, lam=lam, whiten=False)
    group_R = torch.arange(len(reward_RT))
    credit = gae(reward_RT, space.mask_RT, group_R, space.at_states(at.value_S))
    return single(at, credit.advantage_NT, at.true_gradient_SV)


def _listed(critic: Critic) -> str:
    rows = [at_lambda(lam, critic) for lam in LAMBDAS]
    return (
        f"{critic} critic: bias {', '.join(f'{r.bias:.3f}' if r.bias > 1e-12 else '0' for r in rows)}; variance "
        f"{', '.join(f'{r.variance:.1f}' for r in rows)}"
    )


@claim(
    name="lambda-one-is-unbiased",
    statement="At lambda 1 the gradient is unbiased for any critic; below 1 only if the critic is exact.",
    conditions="gamma 1, responses of at most 5 tokens, values exact, off by 0.3 (one draw), or 0",
    origin="paper",
    source="1506.02438, section 3",
    how="exact squared bias over the squared true gradient, lambda 0, 0.5, 0.9, 0.95, 1",
    expected="supported",
)
def lambda_one() -> Finding:
    at_one = max(at_lambda(1.0, critic).bias for critic in CRITICS)
    with_exact = max(at_lambda(lam, "exact").bias for lam in LAMBDAS)
    below = min(at_lambda(lam, critic).bias for critic in ("noisy", "zero") for lam in LAMBDAS[:-1])
    return Finding(
        at_one < 1e-20 and with_exact < 1e-20 and below > 1e-4,
        f"at lambda = {', '.join(f'{lam:g}' for lam in LAMBDAS)}: " + "; ".join(map(_listed, CRITICS)),
        {c: [(at_lambda(lam, c).bias, at_lambda(lam, c).variance) for lam in LAMBDAS] for c in CRITICS},
    )


@claim(
    name="ppo-low-variance-high-bias",
    statement="PPO with its critic has lower variance and higher bias than a group baseline.",
    conditions="lambda 1 and 0.95, values exact, off by 0.3 in each of 20 draws, or 0; leave-one-out and GRPO's std "
    "in groups of 8 and 16; variance per response, relative to the squared mean",
    origin="often said",
    source="lecture notes comparing PPO and GRPO",
    how="exact bias and variance of GAE and of group baselines in the same world, responses of at most 5 tokens",
    expected="depends",
)
def low_variance_high_bias() -> Finding:
    at = first_update(_world())
    groups: dict[str, float] = {}
    for size in (8, 16):
        for name, advantage in (("leave-one-out", RewardToGo(baseline="leave_one_out")), ("group std", STD)):
            found = moments(with_advantage(advantage), at, size)
            # per response, relative to the squared mean: a learning rate absorbs the scale
            groups[f"{name}, G={size}"] = found.variance / found.mean_SV.square().sum().item() * size
    exact, zero = at_lambda(1.0, "exact").variance, at_lambda(1.0, "zero").variance
    noisy = [at_lambda(1.0, "noisy", draw=draw).variance for draw in DRAWS]
    bias_one = max(at_lambda(1.0, "noisy", draw=draw).bias for draw in DRAWS)
    bias_below = min(at_lambda(0.95, "noisy", draw=draw).bias for draw in DRAWS)
    best = min(groups.values())
    share = sum(x < best for x in noisy) / len(noisy)
    lower, higher = [exact < best, share >= 0.9, zero < best], [bias_one > 1e-12, bias_below > 1e-12]
    holds = True if all(lower) and all(higher) else "depends" if any(lower) or any(higher) else False
    mean = sum(noisy) / len(noisy)
    return Finding(
        holds,
        f"variance per response: critic at lambda 1 exact {exact:.1f}, off by 0.3 {mean:.1f} (mean of {len(noisy)} "
        f"draws, in {share:.0%} of them below every group baseline), 0 {zero:.1f}; "
        + ", ".join(f"{name} {x:.1f}" for name, x in groups.items())
        + f". Bias at lambda 1 {bias_one:.0e}, where values are a baseline; at lambda 0.95 at least {bias_below:.1g}",
        {"exact": exact, "noisy": noisy, "zero": zero, "group": groups, "share": share, "bias at 1": bias_one},
        plot=Plot(
            "",
            ["exact critic", "critic off by 0.3", "critic 0", *groups],
            "variance per response",
            {"relative to the squared gradient": [exact, mean, zero, *groups.values()]},
        ),
    )


@claim(
    name="smaller-lambda-less-variance",
    statement="With a noisy critic, a smaller lambda lowers the variance and raises the bias, step by step.",
    conditions="20 critics at each error of 0.05 to 0.5 rewards; a step is one of lambda 1, 0.95, 0.9, 0.5, 0",
    origin="paper",
    source="1506.02438, section 3",
    how="exact bias and variance along lambda, 20 draws of the critic's errors for each size; share of draws where "
    "every step lowers the variance",
    expected="depends",
)
def smaller_lambda() -> Finding:
    shares: dict[float, float] = {}
    rises: dict[float, float] = {}
    means: dict[float, list[float]] = {}
    for error in ERRORS:
        runs = [[at_lambda(lam, "noisy", error, draw) for lam in reversed(LAMBDAS)] for draw in DRAWS]
        shares[error] = sum(all(b.variance < a.variance for a, b in pairwise(run)) for run in runs) / len(runs)
        rises[error] = sum(all(b.bias > a.bias for a, b in pairwise(run)) for run in runs) / len(runs)
        means[error] = [sum(run[i].variance for run in runs) / len(runs) for i in range(len(LAMBDAS))]
    text = "; ".join(
        f"errors of {error:g}: in {shares[error] * len(DRAWS):.0f} of {len(DRAWS)} critics (mean variance "
        f"{', '.join(f'{x:.2f}' for x in means[error])})"
        for error in ERRORS
    )
    bias = min(rises.values())
    return Finding(
        over_draws([min(shares[error], rises[error]) for error in ERRORS]),
        f"every step from lambda 1 to 0 lowers the variance: {text}; every step raises the bias in {bias:.0%} of the "
        "critics or more. At lambda 0 every token's advantage contains the errors of two values, at lambda 1 of one",
        {"errors": list(ERRORS), "share": list(shares.values()), "variance": list(means.values())},
        plot=Plot("lambda", list(reversed(LAMBDAS)), "variance", {f"error {e:g}": row for e, row in means.items()}),
    )


@claim(
    name="an-untrained-critic-mutes-early-tokens",
    statement="With values of 0, lambda below 1 scales the signal of early tokens by lambda^(tokens to the end).",
    conditions="values of 0, gamma 1, lambda 0.95, 101 tokens",
    origin="paper",
    source="2504.05118 (VAPO), section 4.2; 2503.01491 (VC-PPO), section 3",
    how="the project's GAE, lambda 0.95, on a right answer of 101 tokens",
    expected="supported",
)
def untrained_critic() -> Finding:
    mask_NT = torch.ones(1, 101, dtype=torch.bool)
    reward_NT = at_last_token(torch.ones(1, dtype=torch.float64), mask_NT)
    gae = GAE(lam=0.95, whiten=False)
    advantage_T = gae(reward_NT, mask_NT, torch.zeros(1).long(), torch.zeros_like(reward_NT)).advantage_NT[0]
    share = (advantage_T[0] / advantage_T[-1]).item()
    return Finding(abs(share / 0.95**100 - 1) < 1e-9, f"first token: {share:.4f} of the last one's", {"share": share})


@claim(
    name="all-right-batch-teaches-nothing",
    statement="After whitening over tokens, a batch with only right answers has no gradient.",
    conditions="whitening over tokens, values of 0, right answers of 2 and 6 tokens; lambda 1 and 0.95",
    origin="often said",
    source="practitioners' notes on PPO",
    how="the project's whitened GAE at lambda 1 and 0.95 on a batch of right answers",
    expected="depends",
)
def all_right_batch() -> Finding:
    mask_NT = torch.arange(6) < torch.tensor([2, 6])[:, None]
    reward_NT = at_last_token(torch.ones(2, dtype=torch.float64), mask_NT)
    found: dict[str, list[float]] = {}
    for lam in (1.0, 0.95):
        credit = GAE(lam=lam)(reward_NT, mask_NT, torch.arange(2), torch.zeros_like(reward_NT))
        found[f"{lam:g}"] = credit.advantage_NT[mask_NT].tolist()
    silent = [max(map(abs, row)) < 1e-9 for row in found.values()]
    below = found["0.95"]
    negative = sum(a < -1e-9 for a in below) / len(below)
    return Finding(
        silent[0] if silent[0] == silent[1] else "depends",
        f"at lambda 1 all advantages are {max(map(abs, found['1'])):.0e}; at lambda 0.95 they are {min(below):+.2f} "
        f"to {max(below):+.2f}, negative for {negative:.0%} of the tokens of these right answers",
        {"advantages": found},
        arithmetic=[
            "values are 0, so A_t = lambda^(tokens to the end): at lambda 1 it is 1 at every token, and whitening "
            "maps a constant to 0",
            "at lambda 0.95: " + ", ".join(f"{a:+.2f}" for a in below) + " after whitening over the 8 tokens",
        ],
    )
