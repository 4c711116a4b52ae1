"""Length normalization: weights of tokens, and lengths of right and wrong answers."""

from __future__ import annotations

import itertools
from functools import cache

import torch
from torch import Tensor

from advantages import Group
from objectives import Objective
from objectives.gspo import GSPO
from objectives.parts import Aggregate, Constant, Linear, NoRatio, SequenceMean, SequenceSum, TokenMean
from rlzoo.lab import exact, group
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim, over_draws
from rlzoo.lab.others import convolve
from rlzoo.lab.plots import Plot
from rlzoo.lab.policy import Tabular
from rlzoo.lab.single import single
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import World, make_world, with_success

LENGTHS = torch.tensor([1, 3, 4, 8])
MASK = torch.arange(8) < LENGTHS[:, None]


@claim(
    name="token-weights",
    statement="A token has weight 1/N under token-mean, 1/(B n_i) under sequence-mean, 1/B under sequence-sum, 1/(B "
    "budget) under constant: all but sequence-mean give all tokens the same weight.",
    conditions="one optimizer step of B responses with N tokens, n_i in response i",
    origin="lemma",
    source="follows from 2503.14476, section 3.3; 2402.03300, equation 3; 2503.20783",
    how="the project's aggregates on responses of 1, 3, 4 and 8 tokens",
    expected="supported",
)
def token_weights() -> Finding:
    n_B1 = LENGTHS[:, None].double()
    expected = {
        TokenMean(): 1 / n_B1.sum(),
        SequenceMean(): 1 / (4 * n_B1),
        SequenceSum(): torch.tensor(1 / 4),
        Constant(budget=8): torch.tensor(1 / 32),
    }
    worst = max((part(MASK, torch.float64) - MASK * share).abs().max().item() for part, share in expected.items())
    shares: dict[str, list[float]] = {}
    for part in expected:
        weight_B = part(MASK, torch.float64).sum(dim=1)
        shares[part.kind] = [round(x, 3) for x in (weight_B / weight_B.sum()).tolist()]
    text = "; ".join(f"{kind} {row}" for kind, row in shares.items())
    return Finding(worst < 1e-15, f"shares of the responses of 1, 3, 4, 8 tokens: {text}", {"shares": shares})


def own(aggregate: Aggregate) -> Objective:
    """Return an objective that isolates an aggregation: mean-centred rewards, no ratio, linear surrogate."""
    return Objective(
        name="own", advantage=Group(scale="none"), ratio=NoRatio(), surrogate=Linear(), aggregate=aggregate
    )


@cache
def _base(task: str, seed: int) -> Situation:
    return first_update(make_world(success=0.3, seed=seed) if task == "parity" else _first_token_world(seed))


@cache
def _length_slopes(task: str, seed: int, aggregate: Aggregate, size: int = 4) -> tuple[float, float]:
    """Return the change of E[n | wrong] and of E[n | right] per unit step along the expected gradient."""
    at = _base(task, seed)
    direction_SV = expected_gradient(at, aggregate, size)
    direction_SV = direction_SV / direction_SV.norm()
    slopes: list[float] = []
    for some_R in (1 - at.accuracy_R, at.accuracy_R):
        leaf_SV = at.logits_SV.clone().requires_grad_()
        p_R = exact.probability(leaf_SV, at.space) * some_R
        mean = (p_R * at.space.length_R).sum() / p_R.sum()
        slopes.append((torch.autograd.grad(mean, leaf_SV)[0] * direction_SV).sum().item())
    return slopes[0], slopes[1]


def expected_gradient(at: Situation, aggregate: Aggregate, size: int) -> Tensor:
    """E[g] of mean-centred right/wrong rewards under an aggregation, one group of `size`: [S, V].

    token mean      c(y) = size E[(r_y (1 - 1/size) - K/size) / (n_y + Z)], K right answers and Z tokens of the others
    sequence mean   c(y) = (1 - 1/size) (r_y - p) / n_y; sequence sum the same without 1 / n_y

    The result equals that of `moments`, without its table of weights.
    """
    if not isinstance(aggregate, TokenMean):
        share_R = aggregate(at.space.mask_RT, torch.float64)[:, 0] * len(at.reward_R)
        p = (at.old_probability_R * at.reward_R).sum()
        c_R = share_R * (1 - 1 / size) * (at.reward_R - p)
        return single(at, c_R[:, None].expand(at.space.mask_RT.shape), at.true_gradient_SV).mean_SV
    _, others = convolve(at.old_probability_R, at.accuracy_R.long(), at.space.length_R, size - 1)
    right_A, total_Z = others.count_AC[:, -1].double(), torch.arange(others.law_AZ.shape[1]).double()
    share_RZ = size / (at.space.length_R[:, None] + total_Z)
    law_Z, right_Z = others.law_AZ.sum(dim=0), right_A @ others.law_AZ
    own_R = at.reward_R * (1 - 1 / size)
    c_R = own_R * (share_RZ @ law_Z) - share_RZ @ right_Z / size
    return single(at, c_R[:, None].expand(at.space.mask_RT.shape), at.true_gradient_SV).mean_SV


def _first_token_world(seed: int) -> World:
    """Return a world in which answers that begin with 1 are right; right and wrong ones have 2 to 4 tokens."""
    space = enumerate_responses(3, 4)
    right_R, policy = (space.token_RT[:, 0] == 1).double(), Tabular(space)
    theta_M = policy.initial(seed)
    theta_M[2] = -30.0  # the end token is never first
    return World(space, policy, with_success(policy, theta_M, right_R, 0.3), right_R, right_R)


SEEDS = tuple(range(LEAST_DRAWS))
TASKS = {
    "parity": "parity (some wrong answers of one token)",
    "first token": "first token (right and wrong of 2 to 4 tokens)",
}


def _against_sum(task: str, aggregate: Aggregate) -> tuple[Tensor, Tensor]:
    """Return the slopes of the length of wrong and of right answers minus those of the unbiased sum, over bases."""
    pairs = [(_length_slopes(task, seed, aggregate), _length_slopes(task, seed, SequenceSum())) for seed in SEEDS]
    return torch.tensor([a[0] - b[0] for a, b in pairs]), torch.tensor([a[1] - b[1] for a, b in pairs])


@claim(
    name="one-over-length-lengthens-wrong-answers",
    statement="Dividing by the response's length makes wrong answers longer than the unbiased sum does.",
    conditions="one expected step of sequence mean against the unbiased sum, groups of 4, mean-centred rewards, "
    "tabular policies",
    origin="paper",
    source="2503.20783, section 3.1",
    quote="longer responses are penalized less [...] causing the policy to prefer lengthier responses among incorrect "
    "ones",
    how="exact slope of E[n given wrong] along E[g], sequence-mean minus sequence-sum, 20 random bases of two tasks",
    expected="supported",
)
def lengthens_wrong() -> Finding:
    found = {task: _against_sum(task, SequenceMean())[0] for task in TASKS}
    shares = [(wrong > 0).double().mean().item() for wrong in found.values()]
    text = "; ".join(
        f"{TASKS[task]}: in {share:.0%} of the bases, on average {wrong.mean():+.3f} tokens per unit step"
        for share, (task, wrong) in zip(shares, found.items(), strict=True)
    )
    return Finding(over_draws(shares), text, {task: wrong.tolist() for task, wrong in found.items()})


@claim(
    name="one-over-length-shortens-right-answers",
    statement="Dividing by the response's length makes right answers shorter than the unbiased sum does.",
    conditions="one expected step of sequence mean against the unbiased sum, groups of 4, mean-centred rewards, "
    "tabular policies",
    origin="paper",
    source="2503.20783, section 3.1",
    quote="leading the policy to favor brevity in correct answers",
    how="exact slope of E[n given right] along E[g], sequence-mean minus sequence-sum, 20 random bases of two tasks",
    expected="supported",
)
def shortens_right() -> Finding:
    found = {task: _against_sum(task, SequenceMean())[1] for task in TASKS}
    shares = [(right < 0).double().mean().item() for right in found.values()]
    text = "; ".join(
        f"{TASKS[task]}: in {share:.0%} of the bases, on average {right.mean():+.3f} tokens per unit step"
        for share, (task, right) in zip(shares, found.items(), strict=True)
    )
    return Finding(over_draws(shares), text, {task: right.tolist() for task, right in found.items()})


@claim(
    name="right-answers-shorten-more",
    statement="Dividing by the response's length changes the length of right answers more than that of wrong ones.",
    conditions="one expected step, groups of 4, tabular policies; not a training run",
    origin="often said",
    source="measured after training in the research log of rl4llm: wrong +0.15, right -0.8 tokens",
    how="the two slopes of each of 20 random bases of two tasks, sequence-mean minus sequence-sum, compared",
    expected="supported",
)
def shorten_more() -> Finding:
    found = {task: _against_sum(task, SequenceMean()) for task in TASKS}
    shares = [(right.abs() > wrong.abs()).double().mean().item() for wrong, right in found.values()]
    text = "; ".join(
        f"{TASKS[task]}: in {share:.0%} of the bases, |slopes| {right.abs().mean():.3f} against "
        f"{wrong.abs().mean():.3f}"
        for share, (task, (wrong, right)) in zip(shares, found.items(), strict=True)
    )
    return Finding(
        over_draws(shares), f"{text}; this is one step, not a training run", dict(zip(TASKS, shares, strict=True))
    )


@claim(
    name="token-mean-removes-the-length-bias",
    statement="Under the token mean, the remaining effect on lengths, relative to that of 1/length and measured "
    "against the unbiased sum, falls like 1/N in the responses per step.",
    conditions="mean-centred rewards, one expected step, N = 4 to 64 responses of one prompt per step; at N = 4 a "
    "quarter remains",
    origin="paper",
    source="2503.14476, section 3.3",
    quote="it will be equally prompted or suppressed, regardless of the length of the response in which it appears",
    how="slopes of E[n given right] and E[n given wrong] along E[g], token-mean minus sum over sequence-mean minus "
    "sum, 20 bases of two tasks",
    expected="supported",
)
def token_mean_fixes() -> Finding:
    sizes = (4, 8, 16, 32, 64)
    left: dict[str, list[float]] = {}
    for task in TASKS:
        left[task] = []
        for size in sizes:
            shares = [_length_bias_left(task, seed, size) for seed in SEEDS]
            left[task].append(sum(a for a, _ in shares) / sum(b for _, b in shares))
    halves = [b / a for row in left.values() for a, b in itertools.pairwise(row)]
    text = "; ".join(f"{TASKS[t]}: {', '.join(f'{x:.1%}' for x in row)}" for t, row in left.items())
    return Finding(
        all(0.4 < x < 0.6 for x in halves),
        f"remaining at N = {', '.join(map(str, sizes))} responses per step, mean over right and wrong, {text}: each "
        f"doubling of N multiplies it by {min(halves):.2f} to {max(halves):.2f}",
        {"responses": sizes, "left": left},
        plot=Plot("responses per step", sizes, "remaining share of the bias", left, log_x=True, log_y=True),
    )


def _length_bias_left(task: str, seed: int, size: int) -> tuple[float, float]:
    """Return |slope minus the sum's slope| of token-mean and of sequence-mean, summed over right and wrong answers."""
    gaps = []
    for part in (TokenMean(), SequenceMean()):
        # Only the token mean's direction changes with the group's size.
        ours = _length_slopes(task, seed, part, size if isinstance(part, TokenMean) else 4)
        sums = _length_slopes(task, seed, SequenceSum())
        gaps.append(sum(abs(a - b) for a, b in zip(ours, sums, strict=True)))
    return gaps[0], gaps[1]


@claim(
    name="gspo-penalizes-long",
    statement="GSPO gives tokens of long responses less weight, exactly as GRPO's sequence mean does.",
    conditions="first update after sampling; a mixed group with responses of 1 to 4 tokens",
    origin="paper",
    source="2602.05261 (LUSPO), introduction",
    how="slope of the loss at each token of a mixed group with responses of 1 to 4 tokens, times the length",
    expected="supported",
)
def gspo_penalizes_long() -> Finding:
    at = first_update(make_world())
    length_R, right_R = at.space.length_R, at.accuracy_R
    members = [
        int(((length_R == n) & (right_R == r)).nonzero()[0]) for n, r in ((1, 0), (2, 0), (2, 1), (3, 1), (4, 1))
    ]
    response_G = torch.tensor(members)
    told = group.credit_and_weight(GSPO, group.inputs(GSPO, at, response_G))
    slope_G = group.slopes(GSPO, at, response_G, *told).logp_XT[:, 0]
    product_G = slope_G / told[0][:, 0] * length_R[response_G] * len(members)
    worst = (product_G - 1).abs().max().item()
    return Finding(worst < 1e-12, f"slope / advantage = 1 / (G n_i), to {worst:.0e}", {"deviation": worst})
