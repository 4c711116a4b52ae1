"""What lengths do: weights of tokens, the four statistics, short right and long wrong answers, length punishments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product

import torch
from torch import Tensor

from advantages import Group, ShapeContext, SoftOverlong, at_last_token
from objectives import Objective
from objectives.gspo import GSPO
from objectives.parts import Aggregate, Constant, Linear, NoRatio, SequenceMean, SequenceSum, TokenMean
from rlzoo.lab import exact, group
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.moments import moments
from rlzoo.lab.others import convolve
from rlzoo.lab.policy import Tabular
from rlzoo.lab.single import relative_difference
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import World, make_world, with_success

LENGTHS = torch.tensor([1, 3, 4, 8])
MASK = torch.arange(8) < LENGTHS[:, None]


@claim(
    name="token-weights",
    statement="A token weighs 1/N under token-mean, 1/(B n_i) under sequence-mean, 1/B under sequence-sum, 1/(B "
    "budget) "
    "under constant: only the first and the last two give all tokens the same.",
    source="2503.14476, section 3.3; 2402.03300, equation 3; 2503.20783",
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


@cache
def _law_of_sums(size: int) -> tuple[Tensor, Tensor, Tensor, Situation]:
    """Joint law of (right answers, total length) of a group: counts, totals, probabilities."""
    at = first_update(make_world(success=0.3))
    _, table = convolve(at.old_probability_R, at.accuracy_R.long(), at.space.length_R, size)
    return table.count_AC[:, 1].double(), torch.arange(table.law_AZ.shape[1]).double(), table.law_AZ, at


@claim(
    name="mean-of-sequence-means-is-unbiased",
    statement="mean_i A_i / n_i (GRPO's statistic) is unbiased for the mean over responses of their mean token "
    "advantage.",
    source="folklore",
    how="A_i = reward; exact expectation over groups of 1, 2, 8 against E[A/n]",
    expected="supported",
)
def sequence_statistic() -> Finding:
    at = _law_of_sums(1)[3]
    p_R, rate_R = at.old_probability_R, at.reward_R / at.space.length_R
    target = (p_R * rate_R).sum().item()
    gaps = []
    for size in (1, 2, 8):
        _, table = convolve(p_R, torch.unique(rate_R, return_inverse=True)[1], at.space.length_R, size)
        value_C = torch.unique(rate_R)
        mean = (table.law_AZ.sum(dim=1) * (table.count_AC.double() @ value_C) / size).sum().item()
        gaps.append(abs(mean / target - 1))
    tokens = (p_R * at.reward_R).sum().item() / (p_R * at.space.length_R).sum().item()
    return Finding(
        max(gaps) < 1e-12,
        f"E = {target:.4f} at every group size (the mean over all tokens, E[A]/E[n], is {tokens:.4f}: it is "
        f"biased for that)",
        {"expectation": target, "all tokens": tokens},
    )


@claim(
    name="ratio-of-sums-is-unbiased",
    statement="sum_i A_i / sum_i n_i (DAPO's statistic) is unbiased for the mean token advantage over all tokens.",
    source="folklore",
    how="A_i = reward; exact expectation over groups against E[A]/E[n]",
    expected="refuted",
)
def token_statistic() -> Finding:
    biases: dict[str, float] = {}
    for size in (1, 2, 4, 8, 16, 32):
        right_A, total_Z, law_AZ, at = _law_of_sums(size)
        p_R = at.old_probability_R
        target = (p_R * at.reward_R).sum() / (p_R * at.space.length_R).sum()
        mean = (law_AZ * right_A[:, None] / total_Z.clamp(min=1)).sum()
        biases[str(size)] = (mean / target - 1).item()
    shown = ", ".join(f"G={size}: {b:+.2%}" for size, b in biases.items())
    return Finding(
        max(map(abs, biases.values())) < 1e-12,
        f"relative bias {shown}: it shrinks like 1/G (bias times G at 32: {32 * biases['32']:+.3f}, at 16: "
        f"{16 * biases['16']:+.3f}), so it is consistent, not unbiased, when lengths are random; unbiased given "
        f"the lengths",
        biases,
    )


def _small_groups() -> Iterator[tuple[list[Fraction], list[Fraction]]]:
    """Every group of three responses with A_i in 0, 1, 2 and n_i in 1 .. 4: advantages and lengths."""
    one = [(Fraction(a), Fraction(n)) for a in range(3) for n in range(1, 5)]
    for three in product(one, repeat=3):
        yield [a for a, _ in three], [n for _, n in three]


@claim(
    name="each-statistic-has-its-mean",
    statement="Given the lengths, sum A/sum n is the mean advantage over all tokens, as A_i/n_i is that within "
    "response i; A_i over the mean length (DAPO's one token) is neither, unless n_i is average or A_i is 0.",
    source="derived",
    how="every group of three responses of 1 to 4 tokens with advantages 0, 1, 2, in fractions",
    expected="supported",
)
def four_statistics() -> Finding:
    wrong = groups = 0
    for a, n in _small_groups():
        tokens = [a_i / n_i for a_i, n_i in zip(a, n, strict=True) for _ in range(int(n_i))]
        means = [a_i / n_i for a_i, n_i in zip(a, n, strict=True)]
        average = sum(n) / 3
        wrong += sum(a) / sum(n) != sum(tokens, Fraction(0)) / len(tokens)
        wrong += any(
            (a_i / average == mean) != (n_i == average or a_i == 0) for a_i, n_i, mean in zip(a, n, means, strict=True)
        )
        groups += 1
    return Finding(wrong == 0, f"exceptions in {groups} groups: {wrong}", {"groups": groups, "exceptions": wrong})


@claim(
    name="statistics-differ-unless-equal",
    statement="mean_i A_i/n_i and sum A/sum n agree only if all lengths or all means within responses are equal.",
    source="folklore",
    how="the same groups, in fractions",
    expected="supported",
)
def sequence_against_token() -> Finding:
    agree = others = uncorrelated = 0
    for a, n in _small_groups():
        means = [a_i / n_i for a_i, n_i in zip(a, n, strict=True)]
        if sum(means) / 3 != sum(a) / sum(n):
            continue
        agree += 1
        if len(set(n)) > 1 and len(set(means)) > 1:
            others += 1
            covariance = sum(a) / 3 - sum(n) / 3 * sum(means) / 3  # mean of n_i m_i = A_i, less the product of means
            uncorrelated += covariance == 0
    return Finding(
        others == 0,
        f"they agree in {agree} groups, in {others} of them with unequal lengths and means: what it takes is that "
        f"length and mean are uncorrelated in the group (true of {uncorrelated} of these {others})",
        {"agree": agree, "neither equal": others, "uncorrelated": uncorrelated},
    )


def _own(aggregate: Aggregate) -> Objective:
    return Objective(
        name="own", advantage=Group(scale="none"), ratio=NoRatio(), surrogate=Linear(), aggregate=aggregate
    )


@cache
def _length_slopes(task: str, seed: int, aggregate: Aggregate) -> tuple[float, float]:
    """Change of E[n | wrong] and E[n | right] per unit step along the expected gradient, groups of 4."""
    at = first_update(make_world(success=0.3, seed=seed) if task == "parity" else _first_token_world(seed))
    direction_SV = moments(_own(aggregate), at, 4).mean_SV
    direction_SV = direction_SV / direction_SV.norm()
    slopes: list[float] = []
    for some_R in (1 - at.accuracy_R, at.accuracy_R):
        leaf_SV = at.logits_SV.clone().requires_grad_()
        p_R = exact.probability(leaf_SV, at.space) * some_R
        mean = (p_R * at.space.length_R).sum() / p_R.sum()
        slopes.append((torch.autograd.grad(mean, leaf_SV)[0] * direction_SV).sum().item())
    return slopes[0], slopes[1]


def _first_token_world(seed: int) -> World:
    """Right is an answer that begins with 1, wrong one that begins with 0, of 2 to 4 tokens both: length is free."""
    space = enumerate_responses(3, 4)
    right_R, policy = (space.token_RT[:, 0] == 1).double(), Tabular(space)
    theta_M = policy.initial(seed)
    theta_M[2] = -30.0  # nobody ends at once
    return World(space, policy, with_success(policy, theta_M, right_R, 0.3), right_R, right_R)


SEEDS = tuple(range(20))
TASKS = {
    "parity": "parity (some wrong answers of one token)",
    "first token": "first token (right and wrong of 2 to 4 tokens)",
}


def _against_sum(task: str, aggregate: Aggregate) -> tuple[Tensor, Tensor]:
    """Slopes of the length of wrong and of right answers minus those of the unbiased sum, over bases."""
    pairs = [(_length_slopes(task, seed, aggregate), _length_slopes(task, seed, SequenceSum())) for seed in SEEDS]
    return torch.tensor([a[0] - b[0] for a, b in pairs]), torch.tensor([a[1] - b[1] for a, b in pairs])


def _verdict(shares: list[float]) -> bool | None:
    """True where nearly every base of both tasks agrees, False where most of no task do, None between."""
    return True if min(shares) >= 0.95 else False if max(shares) < 0.5 else None


@claim(
    name="one-over-length-lengthens-wrong-answers",
    statement="Dividing by the response's length makes wrong answers longer than the unbiased sum does.",
    source="2503.20783, section 3.1",
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
    return Finding(_verdict(shares), text, {task: wrong.tolist() for task, wrong in found.items()})


@claim(
    name="one-over-length-shortens-right-answers",
    statement="It makes right answers shorter.",
    source="2503.20783, section 3.1",
    how="the same with E[n given right]",
    expected="supported",
)
def shortens_right() -> Finding:
    found = {task: _against_sum(task, SequenceMean())[1] for task in TASKS}
    shares = [(right < 0).double().mean().item() for right in found.values()]
    text = "; ".join(
        f"{TASKS[task]}: in {share:.0%} of the bases, on average {right.mean():+.3f} tokens per unit step"
        for share, (task, right) in zip(shares, found.items(), strict=True)
    )
    return Finding(_verdict(shares), text, {task: right.tolist() for task, right in found.items()})


@claim(
    name="right-answers-shorten-more",
    statement="The effect on right answers is the larger one.",
    source="measured in the rl4llm research log: wrong +0.15, right -0.8 tokens after training",
    how="the two slopes of each base compared",
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
        _verdict(shares), f"{text}; this is one step, not a training run", dict(zip(TASKS, shares, strict=True))
    )


@claim(
    name="token-mean-removes-the-length-bias",
    statement="The token-level loss removes what 1/length does to lengths.",
    source="2503.14476, section 3.3",
    how="the same slopes for token-mean minus sequence-sum",
    expected="refuted",
)
def token_mean_fixes() -> Finding:
    left = {
        task: [torch.stack(_against_sum(task, part)).abs().mean().item() for part in (SequenceMean(), TokenMean())]
        for task in TASKS
    }
    text = "; ".join(f"{TASKS[t]}: {b:.3f} of {a:.3f} tokens per unit step ({b / a:.0%})" for t, (a, b) in left.items())
    return Finding(max(b for _, b in left.values()) < 1e-9, f"left, mean over right and wrong, {text}", dict(left))


@claim(
    name="gspo-penalizes-long",
    statement="GSPO gives tokens of long responses less weight, exactly as GRPO's sequence mean does.",
    source="2602.05261 (LUSPO)",
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


def _overlong_advantage(scale: str, weight: float) -> list[float]:
    """Advantages in a group of 8 right answers of which the last one is as long as allowed."""
    mask_NT = torch.arange(10) < torch.tensor([4] * 7 + [10])[:, None]
    context = ShapeContext(mask_NT, torch.zeros(8, 10), None, max_length=10)
    reward_NT = SoftOverlong(weight=weight)(at_last_token(torch.ones(8).double(), mask_NT), context)
    credit = Group.parse({"kind": "group", "scale": scale})(reward_NT, mask_NT, torch.zeros(8, dtype=torch.long))
    return credit.advantage_NT[:, 0].tolist()


@claim(
    name="soft-overlong-is-soft",
    statement="In a group of right answers, a smaller length punishment pushes a too long one away less.",
    source="2503.14476, section 3.4, with group std",
    how="advantage of the one long answer among eight right ones, punishments 1 to 0.001, std and mean-only",
    expected="refuted",
)
def overlong_is_soft() -> Finding:
    weights = (1.0, 0.1, 0.01, 0.001)
    std, none = ([_overlong_advantage(scale, w)[-1] for w in weights] for scale in ("std", "none"))
    return Finding(
        abs(std[-1]) < 0.9 * abs(std[0]),
        f"std: {', '.join(f'{a:.2f}' for a in std)} for punishments {', '.join(f'{w:g}' for w in weights)}; mean-only: "
        f"{', '.join(f'{a:.4f}' for a in none)}",
        {"punishment": weights, "std": std, "none": none},
    )


@claim(
    name="reward-variance-revives-all-right-groups",
    statement="Selecting groups by reward instead of accuracy keeps all-right groups that differ in length only.",
    source="verl's metric: acc",
    how="probability that a group of 8 is kept by accuracy, and by shaped reward, base right 90% of the time",
    expected="supported",
)
def reward_variance() -> Finding:
    at = first_update(make_world(success=0.9))
    by_accuracy = moments(_own(SequenceSum()).but(select="mixed"), at, 8).kept
    context = ShapeContext(
        at.space.mask_RT, torch.zeros_like(at.space.mask_RT, dtype=torch.double), None, at.space.longest
    )
    shaped_R = SoftOverlong()(at_last_token(at.reward_R, at.space.mask_RT), context).sum(dim=1)
    by_reward = moments(_own(SequenceSum()).but(select="mixed"), replace(at, accuracy_R=shaped_R), 8).kept
    gap = relative_difference(torch.tensor(by_reward), torch.tensor(by_accuracy))
    return Finding(gap > 0.01, f"kept by accuracy {by_accuracy:.1%}, by shaped reward {by_reward:.1%}", {"gap": gap})
