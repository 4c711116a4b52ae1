"""Monte Carlo and temporal difference: what lambda trades, with exact, noisy and no values."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch

from advantages import GAE, at_last_token
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.measure import Critic, critic_values
from rlzoo.lab.single import Single, single
from rlzoo.lab.situation import first_update
from rlzoo.lab.world import make_world

LAMBDAS = (0.0, 0.5, 0.9, 0.95, 1.0)
CRITICS: tuple[Critic, ...] = ("exact", "noisy", "zero")


@cache
def at_lambda(lam: float, critic: Critic, error: float = 0.3) -> Single:
    """Single-response actor gradient with GAE(1, lambda), against the true gradient; responses of at most 5 tokens."""
    world = make_world(longest=5)
    at = first_update(world, critic_values(world, critic, error=error))
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
    statement="At lambda 1 the gradient is unbiased whatever the critic says; below 1 only if the critic is exact.",
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
    statement="PPO (with its critic) has low variance and high bias, group baselines the reverse, at lambda 1 too.",
    source="folklore",
    how="exact bias and variance of GAE at lambda 1 with exact and noisy values against no critic at all",
    expected="refuted",
)
def low_variance_high_bias() -> Finding:
    exact, noisy, zero = (at_lambda(1.0, critic) for critic in CRITICS)
    return Finding(
        noisy.bias > 1e-6,
        f"bias {noisy.bias:.0e}: at lambda 1 values are a baseline; variance {exact.variance:.1f} with exact, "
        f"{noisy.variance:.1f} with noisy values, {zero.variance:.1f} without",
        {"bias": noisy.bias, "variance": [exact.variance, noisy.variance, zero.variance]},
    )


@claim(
    name="smaller-lambda-less-variance",
    statement="With a noisy critic, a smaller lambda lowers the variance and raises the bias, step by step.",
    source="1506.02438, section 3; rl4llm: variance 2.54 to 1.59, squared bias .001 to .10",
    how="exact bias and variance along lambda 1, 0.95, 0.9, 0.5, 0; errors of 0.1, 0.15, 0.3 rewards",
    expected="supported",
)
def smaller_lambda() -> Finding:
    lines: list[str] = []
    numbers: dict[str, list[tuple[float, float]]] = {}
    falling = rising = True
    for error in (0.1, 0.15, 0.3):
        rows = [at_lambda(lam, "noisy", error) for lam in reversed(LAMBDAS)]
        falling &= all(b.variance < a.variance for a, b in pairwise(rows))
        rising &= all(b.bias > a.bias for a, b in pairwise(rows))
        numbers[f"{error:g}"] = [(r.variance, r.bias) for r in rows]
        lines.append(
            f"errors of {error:g}: variance {', '.join(f'{r.variance:.2f}' for r in rows)}, bias "
            f"{', '.join(f'{r.bias:.3f}' for r in rows)}"
        )
    note = "" if falling else ". At lambda 0 the errors of two values enter every token, at lambda 1 those of one"
    return Finding(falling and rising, f"lambda 1 to 0, {'; '.join(lines)}{note}", numbers)


@claim(
    name="an-untrained-critic-mutes-early-tokens",
    statement="With values of 0, lambda below 1 fades the signal of early tokens like lambda^(tokens to the end).",
    source="2503.01491 (VC-PPO), section 3; 2504.05118: 0.95^100 = 0.006",
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
    statement="After whitening over tokens, a batch of right answers only teaches nothing.",
    source="folklore",
    how="the project's whitened GAE, lambda 0.95, values of 0, right answers of 2 and 6 tokens",
    expected="refuted",
)
def all_right_batch() -> Finding:
    mask_NT = torch.arange(6) < torch.tensor([2, 6])[:, None]
    reward_NT = at_last_token(torch.ones(2, dtype=torch.float64), mask_NT)
    credit = GAE(lam=0.95)(reward_NT, mask_NT, torch.arange(2), torch.zeros_like(reward_NT))
    advantage = credit.advantage_NT[mask_NT]
    negative = (advantage < -1e-9).double().mean().item()
    return Finding(
        advantage.abs().max().item() < 1e-9,
        f"advantages from {advantage.min():+.2f} to {advantage.max():+.2f}; {negative:.0%} of the tokens of "
        f"these right answers "
        "are pushed down",
        {"advantages": advantage.tolist()},
    )
