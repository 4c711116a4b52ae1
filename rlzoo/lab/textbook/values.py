"""Values of a policy: Monte Carlo, k-step returns, TD(lambda), sweeps, and the four Bellman relations."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from rlzoo.lab import exact
from rlzoo.lab.evaluation import Chain, monte_carlo, monte_carlo_variance, return_moments, sweeps, td_lambda
from rlzoo.lab.mdp import balloon, residuals, target_variance
from rlzoo.lab.plots import Plot
from rlzoo.lab.textbook.sheet import Cell, Sheet, sheet
from rlzoo.lab.world import make_world

EPISODES, RUNS = 64, 400
CRITIC_ERROR = 0.3


@cache
def chain() -> Chain:
    """Return the parity world plus a reward of 0.2 for every token 1, so that rewards occur before the last token."""
    world = make_world(longest=4)
    reward_SV = exact.token_reward(world.space, world.reward_R).clone()
    reward_SV[:, 1] += 0.2
    return Chain(world.space, world.logits_SV, reward_SV)


def noisy_values(v_S: Tensor, seed: int = 0) -> Tensor:
    """Return a critic's values: V with normal errors of standard deviation 0.3."""
    generator = torch.Generator().manual_seed(seed)
    return v_S + CRITIC_ERROR * torch.randn(v_S.shape, generator=generator, dtype=v_S.dtype)


@sheet("monte-carlo", "V, Q and A by first-visit Monte Carlo, and exact", "Sutton and Barto, section 5.1")
def monte_carlo_sheet() -> Sheet:
    at, known = chain(), chain().exact()
    found = monte_carlo(at, at.sample((RUNS, EPISODES), seed=0))
    predicted_S = monte_carlo_variance(at, EPISODES).sqrt()
    rows: list[list[Cell]] = []
    for s, label in ((0, "empty prefix"), (1, "prefix 0"), (2, "prefix 1")):
        v_X = found.v_XS[:, s][found.visits_XS[:, s] > 0]
        rows.append(
            [f"V({label})", known.v_S[s].item(), v_X.mean().item(), v_X.std().item(), predicted_S[s].item(), len(v_X)]
        )
    for v in range(3):
        for kind, truth, x_X in (
            ("Q", known.q_SV[0, v], found.q_XSV[:, 0, v]),
            ("A", known.a_SV[0, v], found.a_XSV[:, 0, v]),
        ):
            seen = x_X[~x_X.isnan()]
            rows.append([f"{kind}(empty, {v})", truth.item(), seen.mean().item(), seen.std().item(), "", len(seen)])
    law_R = exact.probability(at.logits_SV, at.space)
    mean = (law_R * at.gains()[:, 0]).sum().item()
    second = (law_R * at.gains()[:, 0].square()).sum().item()
    return Sheet(
        ["", "exact", "mean of runs", "sd of runs", "sd predicted", "runs"],
        rows,
        [
            f"V(empty) = sum_y pi(y) G_0(y) = {mean:.6f}; Var[G_0] = {second:.6f} - V^2 = {second - mean**2:.6f}",
            f"every episode visits the empty prefix: sd = sqrt({second - mean**2:.6f} / {EPISODES}) = "
            f"{((second - mean**2) / EPISODES) ** 0.5:.6f}",
            "another prefix is visited n ~ Bin(64, d(s)) times: variance Var[G | s] E[1/n | n > 0]",
        ],
        f"{RUNS} runs of {EPISODES} episodes. The estimates are unbiased, and their spread agrees with the return's "
        "variance and the number of visits.",
        Plot(
            "",
            [str(row[0]) for row in rows],
            "value",
            {"exact": [row[1] for row in rows], "Monte Carlo": [row[2] for row in rows]},
        ),
    )


def _weighted(at: Chain, x_S: Tensor) -> float:
    """Return the mean over states, weighted by visits."""
    visits_S = exact.visits(at.pi_SV, at.space)
    return ((visits_S * x_S).sum() / visits_S.sum()).item()


@sheet("k-step-returns", "Bias and variance of one k-step return or lambda-return", "Sutton and Barto, chapters 7, 12")
def k_step_sheet() -> Sheet:
    at, v_S = chain(), chain().exact().v_S
    believed_S = noisy_values(v_S)
    rows: list[list[Cell]] = []
    for k in range(1, at.space.longest + 1):
        rows.append([f"{k}-step", *_bias_and_variance(at, believed_S, v_S, steps=k)])
    for lam in (0.0, 0.5, 0.9, 1.0):
        rows.append([f"lambda {lam:g}", *_bias_and_variance(at, believed_S, v_S, lam=lam)])
    swept = sweeps(at, believed_S, 2)[2]
    gap = (return_moments(at, believed_S, steps=2)[0] - swept).abs().max().item()
    return Sheet(
        ["return", "squared bias", "variance", "error of one"],
        rows,
        [
            f"E of the 2-step return is two sweeps from the critic's values: largest gap {gap:.0e}",
            f"no response is longer than {at.space.longest} tokens: that return does not use the critic",
        ],
        f"The critic has normal errors of {CRITIC_ERROR} per state, one draw; means over states weighted by visits. "
        "Longer returns trade the critic's bias for the episodes' variance; lambda mixes them.",
        Plot(
            "", [str(r[0]) for r in rows], "", {"squared bias": [r[1] for r in rows], "variance": [r[2] for r in rows]}
        ),
    )


def _bias_and_variance(
    at: Chain, believed_S: Tensor, v_S: Tensor, steps: int | None = None, lam: float = 1.0
) -> list[Cell]:
    mean_S, variance_S = return_moments(at, believed_S, steps=steps, lam=lam)
    bias, variance = _weighted(at, (mean_S - v_S).square()), _weighted(at, variance_S)
    return [bias, variance, bias + variance]


@sheet(
    "value-estimates", "Monte Carlo, TD(lambda) and sweeps after 64 episodes", "Sutton and Barto, chapters 4 to 6, 12"
)
def value_estimates_sheet() -> Sheet:
    at, v_S = chain(), chain().exact().v_S
    begun_S = torch.zeros_like(v_S)
    response_XN = at.sample((RUNS, EPISODES), seed=1)
    found = {"Monte Carlo": monte_carlo(at, response_XN).v_XS}
    for lam in (0.0, 0.5, 1.0):
        found[f"TD({lam:g})"] = td_lambda(at, response_XN, begun_S, lam, alpha=0.1)
    for count, v in enumerate(sweeps(at, begun_S, at.space.longest)):
        if count:
            found[f"{count} sweep{'s' if count > 1 else ''}"] = v[None]
    rows: list[list[Cell]] = []
    for name, v_XS in found.items():
        mean_S, seen_XS = v_XS.nanmean(dim=0), ~v_XS.isnan()
        variance_S = torch.where(seen_XS, (v_XS - mean_S).square(), 0).sum(dim=0) / seen_XS.sum(dim=0).clamp(min=1)
        bias, variance = _weighted(at, (mean_S - v_S).square().nan_to_num()), _weighted(at, variance_S)
        rows.append([name, bias, variance, bias + variance, mean_S[0].item()])
    return Sheet(
        ["method", "squared bias", "variance", "error", "V(empty prefix)"],
        rows,
        [
            f"exact V(empty prefix) = {v_S[0].item():.6f}",
            "TD from 0 with alpha 0.1: its bias is the 0.9^n of the initial value that remains after n visits; TD(1) "
            "with steps of 1/n is Monte Carlo",
            f"sweeps use the model, so they have no variance; after {at.space.longest} they are exact",
        ],
        f"{RUNS} runs of {EPISODES} episodes, initial values 0, means over states weighted by visits.",
        Plot(
            "", [str(r[0]) for r in rows], "", {"squared bias": [r[1] for r in rows], "variance": [r[2] for r in rows]}
        ),
    )


@sheet("dynamic-programming", "Iterative policy evaluation from random values", "Sutton and Barto, section 4.1")
def sweeps_sheet() -> Sheet:
    at, v_S = chain(), chain().exact().v_S
    generator = torch.Generator().manual_seed(3)
    start_S = torch.randn(v_S.shape, generator=generator, dtype=v_S.dtype)
    process, pi_SV = balloon(random_next=True, random_reward=True), torch.full((2, 2), 0.5, dtype=torch.float64)
    around_S, there_S = start_S[:2], process.values(pi_SV)
    rows: list[list[Cell]] = []
    for count, v in enumerate(sweeps(at, start_S, 6)):
        rows.append([count, (v - v_S).abs().max().item(), (around_S - there_S).abs().max().item()])
        around_S = (pi_SV * process.q(around_S)).sum(dim=1)
    ratios = ", ".join(f"{b[2] / a[2]:.3f}" for a, b in pairwise(rows))
    return Sheet(
        ["sweeps", "largest error, responses", "largest error, balloon"],
        rows,
        [
            f"responses of at most {at.space.longest} tokens: after as many sweeps the initial values have no effect",
            f"balloon, gamma 0.9, the policy waits half of the time: each sweep leaves at most 0.45 of the error "
            f"({ratios})",
        ],
        "A tree of prefixes is exact after as many sweeps as its depth; with cycles the error falls geometrically.",
        Plot(
            "sweeps",
            [r[0] for r in rows],
            "largest error",
            {"responses": [max(r[1], 1e-17) for r in rows], "balloon": [r[2] for r in rows]},
            log_y=True,
        ),
    )


CASES = {"neither random": (False, False), "random r": (False, True), "random s'": (True, False), "both": (True, True)}


@sheet("bellman", "The Bellman relations, with random next states and random rewards", "Sutton and Barto, chapter 3")
def bellman_sheet() -> Sheet:
    pi_SV = torch.full((2, 2), 0.5, dtype=torch.float64)
    found = {case: residuals(balloon(*which), pi_SV) for case, which in CASES.items()}
    values = {case: balloon(*which).values(pi_SV).tolist() for case, which in CASES.items()}
    rows: list[list[Cell]] = [
        ["V(near)", *(v[0] for v in values.values())],
        ["V(far)", *(v[1] for v in values.values())],
    ]
    rows += [[f"residual of {relation}", *(f"{found[c][relation]:.0e}" for c in CASES)] for relation in found["both"]]
    lines: list[str] = []
    parts: dict[str, list[float]] = {"s'": [], "r": []}
    for case, which in CASES.items():
        process = balloon(*which)
        total_SV, from_next_SV = target_variance(process, process.values(pi_SV))
        from_reward_SV = total_SV - from_next_SV
        parts["s'"].append(from_next_SV.sum().item())
        parts["r"].append(from_reward_SV.sum().item())
        shares = ", ".join(
            f"{action} {total_SV[0, v]:.4f} = {from_next_SV[0, v]:.4f} from s' + {from_reward_SV[0, v]:.4f} from r"
            for v, action in enumerate(("waiting", "shooting"))
        )
        lines.append(f"{case}, near: variance of one target r + gamma V(s'): {shares}")
    process = balloon(True, True)
    near, far = process.values(pi_SV).tolist()
    lines.append(
        f"both: Q(near, wait) = -0.05 + 0.9 (0.5 x {near:.4f} + 0.5 x {far:.4f}) = "
        f"{-0.05 + 0.9 * 0.5 * (near + far):.4f}; Q(near, shoot) = 0.8; V(near) = their mean = {near:.4f}"
    )
    return Sheet(
        ["", *CASES],
        rows,
        lines,
        "With random next states, a relation holds for the mean over s', not for a sample. So a sampled target has "
        "variance even if the value is exact.",
        Plot("", list(CASES), "variance of sampled targets", parts),
    )
