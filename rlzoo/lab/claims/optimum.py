"""Value-based learning: the maximum over noisy values, off-policy samples, and KL-regularized optima."""

from __future__ import annotations

import itertools
from functools import cache

import torch
from scipy.stats import binom
from torch import Tensor

from rlzoo.lab import exact, qstar
from rlzoo.lab.claims.card import Finding, claim
from rlzoo.lab.plots import Plot
from rlzoo.lab.space import Space, enumerate_responses
from rlzoo.lab.world import make_world, parity

ARMS = {"equal": (0.5, 0.5, 0.5), "unequal": (0.6, 0.5, 0.4)}
SAMPLES = (2, 8, 32)
BETA = 0.2


@cache
def maximum_bias(arms: str, samples: int) -> float:
    """E[max_a mean_a] - max_a p_a, each mean over `samples` answers that are right with probability p_a."""
    counts = torch.arange(samples + 1)
    below_K = torch.ones(samples + 1, dtype=torch.float64)
    for p in ARMS[arms]:
        below_K = below_K * torch.from_numpy(binom.cdf(counts.numpy(), samples, p))
    return ((1 - below_K)[:-1].sum() / samples).item() - max(ARMS[arms])  # E[x] = sum of P(x > k)


@cache
def double_bias(arms: str, samples: int) -> float:
    """The same for mean_B at argmax mean_A, each over half of the samples; ties are shared."""
    half = samples // 2
    pmf_AK = torch.stack([torch.from_numpy(binom.pmf(range(half + 1), half, p)) for p in ARMS[arms]])
    chosen_A = torch.zeros(len(pmf_AK), dtype=torch.float64)
    for counts in itertools.product(range(half + 1), repeat=len(pmf_AK)):
        count_A = torch.tensor(counts)
        best_A = (count_A == count_A.max()).double()
        chosen_A += pmf_AK[torch.arange(len(pmf_AK)), count_A].prod() * best_A / best_A.sum()
    return (chosen_A @ torch.tensor(ARMS[arms], dtype=torch.float64)).item() - max(ARMS[arms])


def _biases(of: object) -> tuple[str, dict[str, list[float]]]:
    found = {arms: [of(arms, n) for n in SAMPLES] for arms in ARMS}  # type: ignore[operator]
    shown = "; ".join(
        f"{arms} arms: {', '.join(f'{x if abs(x) > 1e-12 else 0:+.3f}' for x in biases)}"
        for arms, biases in found.items()
    )
    return shown, found


HOW = "exact over all outcomes of 2, 8, 32 answers per arm; three arms, right 50/50/50% or 60/50/40% of the time"


@claim(
    name="the-maximum-overestimates",
    statement="The maximum over noisy values overestimates the best one.",
    conditions="three arms, 2 to 32 answers per arm",
    origin="paper",
    source="1509.06461, section 2; van Hasselt 2010, section 2",
    how=HOW,
    expected="supported",
)
def maximum_overestimates() -> Finding:
    shown, found = _biases(maximum_bias)
    return Finding(min(map(min, found.values())) > 1e-6, f"bias at 2, 8, 32 samples, {shown}", found)


@claim(
    name="the-double-estimator-underestimates",
    statement="The double estimator (one half of the samples chooses, the other values) underestimates the best arm "
    "where arms differ, and is unbiased where they are equal.",
    conditions="three arms, 2 to 32 answers per arm, ties shared",
    origin="paper",
    source="van Hasselt 2010, Double Q-learning, section 3",
    how=HOW,
    expected="supported",
)
def double_underestimates() -> Finding:
    shown, found = _biases(double_bias)
    return Finding(
        max(map(abs, found["equal"])) < 1e-12 and max(found["unequal"]) < -1e-6,
        f"bias at 2, 8, 32 samples, {shown}",
        found,
        plot=Plot("samples per arm", SAMPLES, "bias", {f"{arms} arms": x for arms, x in found.items()}, log_x=True),
    )


def judged_maximum(longest: int, error: float = 0.5) -> float:
    """E[max over all responses of reward + error] - max reward: the bias that repeated maxima give the empty prefix.

    By quadrature over the product of the distribution functions; errors are normal and independent.
    """
    reward_R = parity(enumerate_responses(3, longest))
    x_X = torch.linspace(-6, 8, 14001, dtype=torch.float64)
    below_X = torch.special.ndtr((x_X[:, None] - reward_R) / error).log().sum(dim=1).exp()
    # E[x] = high - integral of P(x <= t) up to high
    return (8 - torch.trapezoid(below_X, x_X)).item() - 1


@claim(
    name="overestimates-grow-with-length",
    statement="With a maximum at every token, the overestimate of the best response grows with the number of tokens.",
    conditions="every response judged once, normal errors of 0.5",
    origin="lemma",
    source="derived, on 1509.06461",
    how="expected maximum over all judged responses of at most 2 to 6 of 3 tokens, one judgement each, error 0.5",
    expected="supported",
)
def grows_with_length() -> Finding:
    found = {longest: judged_maximum(longest) for longest in range(2, 7)}
    return Finding(
        all(a < b for a, b in itertools.pairwise(found.values())),
        "overestimate at 2 to 6 tokens: " + ", ".join(f"+{x:.2f}" for x in found.values()),
        {str(longest): x for longest, x in found.items()},
    )


def graded(space: Space) -> Tensor:
    """Return the reward of every response: 0 if wrong, else 1 at two tokens and less for longer ones."""
    return parity(space) * (space.longest + 2 - space.mask_RT.sum(dim=1)) / space.longest


@claim(
    name="q-learning-is-off-policy",
    statement="Q-learning's expected updates converge to Q* from any sampler that gives every token a chance.",
    conditions="expected updates, a sampler that gives every token a positive probability",
    origin="paper",
    source="Watkins and Dayan 1992, theorem",
    how="expected updates from a uniform sampler and from one with a base's logits times 0.3, graded reward, 4 tokens",
    expected="supported",
)
def q_learning_is_off_policy() -> Finding:
    world = make_world(success=0.25)
    space = world.space
    reward_SV = exact.token_reward(space, graded(space))
    best = qstar.optimal(space, reward_SV)
    errors: dict[str, float] = {}
    for sampler, sharpness in (("uniform", 0.0), ("other", 0.3)):
        pi_SV = (sharpness * world.logits_SV).softmax(dim=1)
        visits_SV = exact.visits(pi_SV, space)[:, None] * pi_SV
        step_SV = visits_SV / visits_SV.amax()
        q_SV = torch.zeros_like(reward_SV)
        for _ in range(int(30 / step_SV.amin().item())):
            next_SV = torch.where(space.next_SV >= 0, q_SV.amax(dim=1)[space.next_SV.clamp(min=0)], 0)
            q_SV = q_SV + step_SV * (reward_SV + next_SV - q_SV)
        errors[sampler] = (q_SV - best.q_SV).abs().max().item()
    return Finding(
        max(errors.values()) < 1e-9,
        ", ".join(f"largest |Q - Q*| from the {sampler} sampler {error:.0e}" for sampler, error in errors.items()),
        dict(errors),
    )


@claim(
    name="without-a-ratio-it-imitates",
    statement="REINFORCE without a ratio, on another sampler's responses and with rewards of at least 0, converges to "
    "the policy in proportion to q R: imitation weighted by reward, not the best response.",
    conditions="uniform sampler q, no baseline; with right/wrong rewards the two are equally good",
    origin="lemma",
    source="derived",
    how="where E_q[R grad log pi] is 0 (pi in proportion to q R), uniform sampler, right/wrong and graded rewards",
    expected="supported",
)
def imitates() -> Finding:
    space = enumerate_responses(3, 4)
    uniform_SV = torch.zeros(len(space.prefix_ST), 3, dtype=torch.float64)
    q_R = exact.probability(uniform_SV, space)
    lines, found = [], {}
    for name, reward_R in (("right/wrong", parity(space)), ("graded", graded(space))):
        weight_R = q_R * reward_R
        # The policy in proportion to q R, token by token: the mass that passes through each choice.
        mass_SV = torch.zeros_like(uniform_SV).index_put(
            (space.state_RT[space.mask_RT], space.token_RT[space.mask_RT]),
            weight_R[:, None].expand_as(space.mask_RT)[space.mask_RT],
            accumulate=True,
        )
        through_S1 = mass_SV.sum(dim=1, keepdim=True)
        pi_SV = torch.where(through_S1 > 0, mass_SV / through_S1, 1 / 3)
        rest_SV = mass_SV - through_S1 * pi_SV  # E_q[R grad log pi]
        reached = (qstar.probability(pi_SV, space) @ reward_R).item()
        found[name] = {"reached": reached, "best": reward_R.max().item(), "gradient": rest_SV.abs().max().item()}
        lines.append(
            f"{name}: converges (gradient {found[name]['gradient']:.0e}) to {reached:.3f} of {reward_R.max():g}"
        )
    closed = ((q_R * graded(space).square()).sum() / (q_R * graded(space)).sum()).item()
    rests = max(x["gradient"] for x in found.values()) < 1e-12
    short = found["graded"]["best"] - found["graded"]["reached"] > 1e-3
    as_good = found["right/wrong"]["best"] - found["right/wrong"]["reached"] < 1e-9
    return Finding(
        rests and short and as_good and abs(found["graded"]["reached"] - closed) < 1e-12,
        "; ".join(lines) + f" = E_q[R^2] / E_q[R] = {closed:.3f}",
        found,
        arithmetic=[f"reached = sum_y (q R / E_q[R]) R = E_q[R^2] / E_q[R] = {closed:.6f}"],
    )


def _regularized(logp_SV: Tensor, ref_SV: Tensor, space: Space, reward_R: Tensor) -> float:
    """Return E[R] - beta KL(pi || ref)."""
    kl = exact.kl_divergence(logp_SV, ref_SV, space)
    return (exact.expected(logp_SV, space, reward_R) - BETA * kl).item()


@claim(
    name="kl-optimum-is-soft-q",
    statement="The best policy under a KL penalty is ref(a|s) exp(Q(s, a) / beta), normalized, with soft Q.",
    conditions="deterministic next states, KL between whole responses, beta 0.2",
    origin="lemma",
    source="derived; the form is known from 1702.08165",
    how="this policy against ref(y) exp(R(y) / beta) over responses, and the gradient of E[R] - beta KL at it",
    expected="supported",
)
def kl_optimum_is_soft_q() -> Finding:
    world = make_world(longest=4)
    space, ref_SV = world.space, world.logits_SV
    soft = qstar.soft_optimal(ref_SV, space, exact.token_reward(space, world.reward_R), BETA)
    logp_SV = qstar.soft_policy(ref_SV, soft.q_SV, BETA)
    closed_R = exact.probability(ref_SV, space) * (world.reward_R / BETA).exp()
    gap = (exact.probability(logp_SV, space) - closed_R / closed_R.sum()).abs().max().item()
    leaf_SV = logp_SV.clone().requires_grad_()
    kl = exact.kl_divergence(leaf_SV, ref_SV, space)
    (gradient_SV,) = torch.autograd.grad(exact.expected(leaf_SV, space, world.reward_R) - BETA * kl, leaf_SV)
    slope = gradient_SV.abs().max().item()
    value = _regularized(logp_SV, ref_SV, space, world.reward_R)
    return Finding(
        gap < 1e-12 and slope < 1e-12 and abs(value - soft.v_S[0].item()) < 1e-12,
        f"largest difference of a response's probability {gap:.0e}, of the gradient from 0 {slope:.0e}; "
        f"E[R] - beta KL = {value:.4f} = V(empty prefix), beta {BETA}",
        {"difference": gap, "gradient": slope, "value": value},
    )


@claim(
    name="values-of-the-base-fall-short",
    statement="Tilting the base token by token with its own values, ref(a|s) exp(Q^ref(s, a) / beta), gives the "
    "KL-regularized optimum only for responses of one token.",
    conditions="beta 0.2, graded rewards, responses of 1 and of up to 4 tokens",
    origin="lemma",
    source="derived",
    how="E[R] - beta KL with Q^ref and with Q* against the optimum; responses of 1 and of up to 4 tokens",
    expected="supported",
)
def values_of_the_base() -> Finding:
    lines, worst = [], 0.0
    numbers: dict[str, list[float]] = {}
    for longest in (1, 4):
        space = enumerate_responses(3, longest)
        ref_SV = torch.randn(len(space.prefix_ST), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        reward_R = torch.linspace(0, 1, len(space.mask_RT), dtype=torch.float64)
        reward_SV = exact.token_reward(space, reward_R)
        tilts = [
            qstar.soft_optimal(ref_SV, space, reward_SV, BETA).q_SV,
            exact.values(ref_SV, space, reward_SV).q_SV,
            qstar.optimal(space, reward_SV).q_SV,
        ]
        best, ref, hard = (
            _regularized(qstar.soft_policy(ref_SV, q_SV, BETA), ref_SV, space, reward_R) for q_SV in tilts
        )
        numbers[str(longest)] = [best, ref, hard]
        worst = max(worst, best - ref)
        lines.append(f"up to {longest}: soft Q {best:.4f}, Q^ref {ref:.4f}, Q* {hard:.4f}")
    exact_at_one = abs(numbers["1"][0] - numbers["1"][1]) < 1e-12
    return Finding(exact_at_one and worst > 1e-3, "E[R] - beta KL, tokens " + "; ".join(lines), numbers)


@claim(
    name="greedy-improvement-ends",
    statement="Acting greedily on exact Q^pi is worse in no state; repeated, it is optimal after as many rounds as "
    "tokens.",
    conditions="20 random bases, random rewards, exact values",
    origin="lemma",
    source="the policy improvement theorem; the number of rounds is derived",
    how="20 bases of up to 4 tokens with random rewards, exact V of each round at every prefix",
    expected="supported",
)
def greedy_improvement() -> Finding:
    space = enumerate_responses(3, 4)
    rounds: list[int] = []
    fell = 0.0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits_SV = torch.randn(len(space.prefix_ST), 3, generator=generator, dtype=torch.float64)
        reward_R = torch.randn(len(space.mask_RT), generator=generator, dtype=torch.float64)
        reward_SV = exact.token_reward(space, reward_R)
        best_S = qstar.optimal(space, reward_SV).v_S
        now = exact.values(logits_SV, space, reward_SV)
        count = 0
        while (best_S - now.v_S).max() > 1e-12 and count <= space.longest:
            pi_SV = qstar.greedy(now.q_SV)
            after = exact.bellman(space, reward_SV, lambda s, q_XV, pi_SV=pi_SV: (pi_SV[s] * q_XV).sum(dim=1))
            fell = max(fell, (now.v_S - after.v_S).max().item())
            now, count = after, count + 1
        rounds.append(count)
    return Finding(
        fell < 1e-12 and max(rounds) <= space.longest,
        f"largest decrease of a value {max(fell, 0):.0e}; rounds to the optimum {min(rounds)} to {max(rounds)}, "
        f"{sum(rounds) / len(rounds):.1f} on average, of at most {space.longest}",
        {"fall": fell, "rounds": rounds},
    )
