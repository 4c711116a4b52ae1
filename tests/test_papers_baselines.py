"""Presets of baselines, critics and groups against their papers' equations, as plain loops over responses and tokens.

As `test_papers.py`, whose helpers it uses: Python floats before the loss, one 0-dimensional tensor per log-prob in it.
Papers without a ratio differentiate A log pi; our surrogate is A pi / sg(pi), whose value is A: the equation's value
with every log pi replaced by 1.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from objectives import get
from objectives.conformance import world as zoo
from tests.test_papers import CLOSE, Tokens, clipped, floats, ours, scalars


def zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def peers_of(i: int, groups: list[int]) -> list[int]:
    return [j for j, g in enumerate(groups) if g == groups[i]]


def rloo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/N sum_i (R_i - mean_{j != i} R_j) log pi(y_i), R_i = r_i - .03 sum_t log(old/ref)_it"""
    old, ref, groups = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT), w.group_N.tolist()
    charged = [
        r - 0.03 * sum(o - q for o, q in zip(old[i], ref[i], strict=True)) for i, r in enumerate(w.reward_N.tolist())
    ]
    loss = zero()
    for i, row in enumerate(logp):
        baseline = statistics.mean(charged[j] for j in peers_of(i, groups) if j != i)
        loss = loss - (charged[i] - baseline) * torch.stack(row).sum() / len(logp)
    return loss


def opo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/N sum_i (r_i - b) log pi(y_i), b = sum_j l_j r_j / sum_j l_j over the responses to the prompt"""
    rewards, groups, length = w.reward_N.tolist(), w.group_N.tolist(), [len(row) for row in logp]
    loss = zero()
    for i, row in enumerate(logp):
        peers = peers_of(i, groups)
        baseline = sum(length[j] * rewards[j] for j in peers) / sum(length[j] for j in peers)
        loss = loss - (rewards[i] - baseline) * torch.stack(row).sum() / len(logp)
    return loss


def whitened(advantage: list[list[float]]) -> list[list[float]]:
    """(A - mean) / sqrt(variance + 1e-8) over all tokens, variance with n-1"""
    every = [a for row in advantage for a in row]
    mean, variance = statistics.mean(every), statistics.variance(every)
    return [[(a - mean) / math.sqrt(variance + 1e-8) for a in row] for row in advantage]


def reinforce_pp(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/B sum_i 1/|y_i| sum_t min(r A, clip(r, .8, 1.2) A), A the whitened gains of r_i - .001 log(old/ref)"""
    old, ref, rewards = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT), w.reward_N.tolist()
    gains: list[list[float]] = []
    for i, r in enumerate(rewards):
        n = len(old[i])
        reward = [-0.001 * (old[i][t] - ref[i][t]) + (r if t == n - 1 else 0.0) for t in range(n)]
        gains.append([sum(reward[t:]) for t in range(n)])
    advantage = whitened(gains)
    loss = zero()
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            loss = loss - clipped((x - old[i][t]).exp(), advantage[i][t], 0.2, 0.2) / len(row) / len(logp)
    return loss


def reinforce_pp_baseline(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/B sum_i 1/|y_i| sum_t [min(r A, clip(r, .8, 1.2) A) - .001 (log pi/ref)^2 / 2], A = whiten(r_i - mean)"""
    old, ref, rewards = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT), w.reward_N.tolist()
    groups = w.group_N.tolist()
    centred = [rewards[i] - statistics.mean(rewards[j] for j in peers_of(i, groups)) for i in range(len(rewards))]
    advantage = whitened([[a] * len(row) for a, row in zip(centred, logp, strict=True)])
    loss = zero()
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            term = clipped((x - old[i][t]).exp(), advantage[i][t], 0.2, 0.2) - 0.001 * (x - ref[i][t]) ** 2 / 2
            loss = loss - term / len(row) / len(logp)
    return loss


def a2c(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """E_t[-(G_t - V_old,t) log pi_t] + .5 E_t[(V_t - G_t)^2 / 2], G_t the reward at the response's end"""
    old_value, count = floats(w.old_value_NT, w.mask_NT), sum(len(row) for row in logp)
    loss = zero()
    for i, r in enumerate(w.reward_N.tolist()):
        for t, x in enumerate(logp[i]):
            loss = loss - (r - old_value[i][t]) * x / count + 0.5 * (value[i][t] - r) ** 2 / 2 / count
    return loss


def dr_grpo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i 1/32 sum_t min(r A, clip(r, .8, 1.2) A), A = r_i - mean; mean over prompts"""
    old, rewards, groups = floats(w.old_logp_NT, w.mask_NT), w.reward_N.tolist(), w.group_N.tolist()
    prompts = sorted(set(groups))
    loss = zero()
    for g in prompts:
        members = [i for i, h in enumerate(groups) if h == g]
        mean = statistics.mean(rewards[i] for i in members)
        for i in members:
            for t, x in enumerate(logp[i]):
                term = clipped((x - old[i][t]).exp(), rewards[i] - mean, 0.2, 0.2)
                loss = loss - term / 32 / len(members) / len(prompts)
    return loss


def lite_ppo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/sum|y_i| sum_i sum_t min(r A, clip(r, .8, 1.2) A), A = (r_i - mean of the group) / (std of all + 1e-6)"""
    old, rewards, groups = floats(w.old_logp_NT, w.mask_NT), w.reward_N.tolist(), w.group_N.tolist()
    std, count = statistics.stdev(rewards), sum(len(row) for row in logp)
    loss = zero()
    for i, row in enumerate(logp):
        advantage = (rewards[i] - statistics.mean(rewards[j] for j in peers_of(i, groups))) / (std + 1e-6)
        for t, x in enumerate(row):
            loss = loss - clipped((x - old[i][t]).exp(), advantage, 0.2, 0.2) / count
    return loss


def ppo_kl(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """E_t[-r_t A_t + 1 (r_t - 1 - log r_t)] + .5 E_t[max((V - R)^2, (clip(V, V_old +- .2) - R)^2) / 2], A as PPO's"""
    old, ref = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT)
    old_value, count = floats(w.old_value_NT, w.mask_NT), sum(len(row) for row in logp)
    raw: list[list[float]] = []
    for i, r in enumerate(w.reward_N.tolist()):
        n = len(old[i])
        reward = [-0.05 * (old[i][t] - ref[i][t]) + (r if t == n - 1 else 0.0) for t in range(n)]
        values = [*old_value[i], 0.0]
        delta = [reward[t] + values[t + 1] - values[t] for t in range(n)]
        raw.append([sum(0.95**k * delta[t + k] for k in range(n - t)) for t in range(n)])
    advantage = whitened(raw)
    loss = zero()
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            rho, target, v = (x - old[i][t]).exp(), raw[i][t] + old_value[i][t], value[i][t]
            loss = loss + (-rho * advantage[i][t] + (rho - 1 - rho.log())) / count
            bounded = v.clamp(old_value[i][t] - 0.2, old_value[i][t] + 0.2)
            loss = loss + 0.5 * torch.maximum((v - target) ** 2, (bounded - target) ** 2) / 2 / count
    return loss


def vapo(w: zoo.World, logp: Tokens, value: Tokens, alpha: float = 0.05) -> Tensor:
    """-1/N sum_it min(r A, clip(r, .8, 1.28) A) + .1 mean over the tokens of right responses of -log pi + critic.

    A is GAE's at 1 - 1 / (alpha |y_i|), 0 where that is negative, whitened; the critic's target is the reward itself.
    """
    old, old_value, rewards = floats(w.old_logp_NT, w.mask_NT), floats(w.old_value_NT, w.mask_NT), w.reward_N.tolist()
    raw: list[list[float]] = []
    for i, r in enumerate(rewards):
        n = len(old[i])
        lam, values = max(1 - 1 / (alpha * n), 0.0), [*old_value[i], 0.0]
        delta = [(r if t == n - 1 else 0.0) + values[t + 1] - values[t] for t in range(n)]
        raw.append([sum(lam**k * delta[t + k] for k in range(n - t)) for t in range(n)])
    advantage, count = whitened(raw), sum(len(row) for row in logp)
    right = [i for i, verdict in enumerate(w.accuracy_N.tolist()) if verdict == 1]
    right_tokens = sum(len(logp[i]) for i in right)
    loss = zero()
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            v, v_old, target = value[i][t], old_value[i][t], rewards[i]
            worse = torch.maximum((v - target) ** 2, (v.clamp(v_old - 0.2, v_old + 0.2) - target) ** 2)
            loss = loss - clipped((x - old[i][t]).exp(), advantage[i][t], 0.2, 0.28) / count + 0.5 * worse / 2 / count
            if i in right:
                loss = loss - 0.1 * x / right_tokens
    return loss


def grpo_2(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/2 sum_i 1/|y_i| sum_t [min(r A, clip(r, .8, 1.2) A) - .04 k3], A = sign(r_i - r_j) / sqrt(2), over pairs"""
    old, ref, rewards = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT), w.reward_N.tolist()
    groups = w.group_N.tolist()
    loss = zero()
    for i, row in enumerate(logp):
        (other,) = (j for j in peers_of(i, groups) if j != i)
        difference = rewards[i] - rewards[other]
        std = abs(difference) / math.sqrt(2)  # squares 2 (d/2)^2, divided by n-1 = 1
        advantage = difference / 2 / (std + 1e-6) if difference else 0.0
        for t, x in enumerate(row):
            k3 = (ref[i][t] - x).exp() - (ref[i][t] - x) - 1
            term = clipped((x - old[i][t]).exp(), advantage, 0.2, 0.2) - 0.04 * k3
            loss = loss - term / len(row) / len(logp)
    return loss


def paired(name: str, w: zoo.World) -> zoo.World:
    """The world in groups of the size that the objective demands: neighbours, right and wrong ones."""
    size = get(name).group_size
    return w if size is None else dataclasses.replace(w, group_N=torch.arange(16) // size)


PAPERS: dict[str, Callable[[zoo.World, Tokens, Tokens], Tensor]] = {
    f.__name__: f
    for f in (rloo, opo, reinforce_pp, reinforce_pp_baseline, a2c, ppo_kl, vapo, dr_grpo, lite_ppo, grpo_2)
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PAPERS)
def test_preset_is_its_papers_equation(name: str, seed: int) -> None:
    w = paired(name, zoo.world(seed))
    loss, gradients = ours(name, w)
    logp_NT, value_NT = zoo.leaf(w.logp_NT), zoo.leaf(w.value_NT)
    paper_loss = PAPERS[name](w, scalars(logp_NT, w.mask_NT), scalars(value_NT, w.mask_NT))
    paper_loss.backward()
    paper_gradients = {"logp_BT": logp_NT.grad, "value_BT": value_NT.grad}
    torch.testing.assert_close(gradients, {key: paper_gradients[key] for key in gradients}, **CLOSE)
    assert gradients["logp_BT"].abs().max() > 1e-4
    if get(name).ratio.kind == "none":
        paper_loss = PAPERS[name](w, scalars(torch.ones_like(w.logp_NT), w.mask_NT), scalars(w.value_NT, w.mask_NT))
    torch.testing.assert_close(loss, paper_loss.detach(), **CLOSE)


def test_vapo_where_lambda_is_not_zero() -> None:
    """At alpha 0.05 no response of this world is long enough; at 0.6 lambda is up to 1 - 1 / (0.6 * 7) = 0.76."""
    w = zoo.world()
    loss, gradients = ours("vapo[advantage.alpha=0.6]", w)
    logp_NT, value_NT = zoo.leaf(w.logp_NT), zoo.leaf(w.value_NT)
    paper_loss = vapo(w, scalars(logp_NT, w.mask_NT), scalars(value_NT, w.mask_NT), alpha=0.6)
    paper_loss.backward()
    torch.testing.assert_close(loss, paper_loss.detach(), **CLOSE)
    torch.testing.assert_close(gradients, {"logp_BT": logp_NT.grad, "value_BT": value_NT.grad}, **CLOSE)


@pytest.mark.parametrize("name", PAPERS)
def test_gradient_by_finite_differences(name: str) -> None:
    """(L(x + h) - L(x - h)) / 2h with h = 1e-6 at twelve tokens; off by O(h^2) + 1e-16 / h."""
    w = paired(name, zoo.world(0))
    gradients = ours(name, w)[1]["logp_BT"]
    for i, t in w.mask_NT.nonzero()[::6].tolist():
        shift = torch.zeros_like(w.logp_NT)
        shift[i, t] = 1e-6
        ahead, behind = (
            PAPERS[name](w, scalars(w.logp_NT + sign * shift, w.mask_NT), scalars(w.value_NT, w.mask_NT)).item()
            for sign in (1, -1)
        )
        assert (ahead - behind) / 2e-6 == pytest.approx(gradients[i, t].item(), rel=1e-4, abs=1e-8), (i, t)
