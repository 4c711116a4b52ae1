"""Each preset against its paper's equation, written as plain loops over responses and tokens.

From the task's rewards to the loss and its gradient, off-policy, on groups of different composition and responses of
different length. Numbers before the loss are Python floats (`statistics`, `math`); in the loss each log-prob is one
0-dimensional tensor, so that autograd gives the equation's own gradient. The gradients are checked once more by finite
differences, which know nothing of autograd.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from objectives import get
from objectives.conformance import world as zoo

CLOSE = {"rtol": 1e-11, "atol": 1e-14}
Tokens = list[list[Tensor]]


def scalars(x_NT: Tensor, mask_NT: Tensor) -> Tokens:
    """One tensor per token inside the mask."""
    return [[x for x, m in zip(row, mask, strict=True) if m] for row, mask in zip(x_NT, mask_NT, strict=True)]


def floats(x_NT: Tensor, mask_NT: Tensor) -> list[list[float]]:
    return [[x.item() for x in row] for row in scalars(x_NT, mask_NT)]


def clip(x: Tensor, low: float, high: float) -> Tensor:
    return low + 0 * x if x < low else high + 0 * x if x > high else x


def clipped(r: Tensor, a: float, low: float, high: float) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A)"""
    plain, bound = r * a, clip(r, 1 - low, 1 + high) * a
    return plain if plain <= bound else bound


def group_advantages(rewards: list[float], groups: list[int]) -> list[float]:
    """(r_i - mean) / (std + 1e-6), std with n-1; 0 where all rewards of the group are equal."""
    advantages: list[float] = []
    for r, g in zip(rewards, groups, strict=True):
        peers = [x for x, h in zip(rewards, groups, strict=True) if h == g]
        std = statistics.stdev(peers)
        advantages.append((r - statistics.mean(peers)) / (std + 1e-6) if std else 0.0)
    return advantages


def reinforce(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/N sum_i sum_t (G_it - b) log pi_it, whose gradient is that of REINFORCE; b the mean return, gamma 1."""
    rewards = w.reward_N.tolist()
    baseline = statistics.mean(rewards)
    loss = torch.zeros((), dtype=torch.float64)
    for r, row in zip(rewards, logp, strict=True):
        for t in range(len(row)):
            reward_to_go = sum(0.0 if k < len(row) - 1 else r for k in range(t, len(row)))
            loss = loss - (reward_to_go - baseline) * row[t] / len(rewards)
    return loss


def ppo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """E_t[-min(r_t A_t, clip(r_t, .8, 1.2) A_t)] + .5 E_t[max((V - R)^2, (clip(V, V_old +- .2) - R)^2) / 2]"""
    old, ref = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT)
    old_value = floats(w.old_value_NT, w.mask_NT)
    advantage: list[list[float]] = []
    for i, r in enumerate(w.reward_N.tolist()):
        n = len(old[i])
        reward = [-0.05 * (old[i][t] - ref[i][t]) + (r if t == n - 1 else 0.0) for t in range(n)]
        values = [*old_value[i], 0.0]
        delta = [reward[t] + 1.0 * values[t + 1] - values[t] for t in range(n)]
        # A_t = sum_k (gamma lambda)^k delta_{t+k}, the sum itself rather than the recursion
        advantage.append([sum((1.0 * 0.95) ** k * delta[t + k] for k in range(n - t)) for t in range(n)])
    returns = [[a + v for a, v in zip(*rows, strict=True)] for rows in zip(advantage, old_value, strict=True)]
    every = [a for row in advantage for a in row]
    mean, variance = statistics.mean(every), statistics.variance(every)
    loss, count = torch.zeros((), dtype=torch.float64), len(every)
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            a = (advantage[i][t] - mean) / math.sqrt(variance + 1e-8)
            loss = loss - clipped((x - old[i][t]).exp(), a, 0.2, 0.2) / count
            v, target = value[i][t], returns[i][t]
            bounded = clip(v, old_value[i][t] - 0.2, old_value[i][t] + 0.2)
            first, second = (v - target) ** 2, (bounded - target) ** 2
            loss = loss + 0.5 * (first if first >= second else second) / 2 / count
    return loss


def grpo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i 1/|y_i| sum_t [min(r A, clip(r, .8, 1.2) A) - .04 (ref/pi - log(ref/pi) - 1)], mean over prompts."""
    old, ref, groups = floats(w.old_logp_NT, w.mask_NT), floats(w.ref_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    prompts = sorted(set(groups))
    loss = torch.zeros((), dtype=torch.float64)
    for g in prompts:
        members = [i for i, h in enumerate(groups) if h == g]
        for i in members:
            for t, x in enumerate(logp[i]):
                quotient = (ref[i][t] - x).exp()
                k3 = quotient - quotient.log() - 1
                term = clipped((x - old[i][t]).exp(), advantage[i], 0.2, 0.2) - 0.04 * k3
                loss = loss - term / len(logp[i]) / len(members) / len(prompts)
    return loss


def punished(w: zoo.World, length: list[int]) -> list[float]:
    """DAPO's rewards: 0 up to Lmax - Lcache, then linear to -1 at Lmax."""
    cache = 0.2 * w.max_length
    rewards: list[float] = []
    for r, n in zip(w.reward_N.tolist(), length, strict=True):
        if n <= w.max_length - cache:
            rewards.append(r)
        elif n <= w.max_length:
            rewards.append(r + ((w.max_length - cache) - n) / cache)
        else:
            rewards.append(r - 1)
    return rewards


def mixed_rows(w: zoo.World) -> list[int]:
    """Rows of prompts with right and wrong responses."""
    right = w.accuracy_PG.tolist()
    return [i for i, g in enumerate(w.group_N.tolist()) if 0 < sum(right[g]) < len(right[g])]


def dapo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/sum|y_i| sum_i sum_t min(r A, clip(r, .8, 1.28) A), over prompts with 0 < #right < G, rewards + R_len."""
    old, length = floats(w.old_logp_NT, w.mask_NT), [len(row) for row in logp]
    advantage, trained = group_advantages(punished(w, length), w.group_N.tolist()), mixed_rows(w)
    total = sum(length[i] for i in trained)
    loss = torch.zeros((), dtype=torch.float64)
    for i in trained:
        for t, x in enumerate(logp[i]):
            loss = loss - clipped((x - old[i][t]).exp(), advantage[i], 0.2, 0.28) / total
    return loss


def gspo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i min(s_i A_i, clip(s_i, 1 - 3e-4, 1 + 4e-4) A_i), mean over prompts: the plain form."""
    old, groups = floats(w.old_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        ratio_of_responses = torch.stack([x - o for x, o in zip(row, old[i], strict=True)]).sum().exp()
        s = ratio_of_responses ** (1 / len(row))
        loss = loss - clipped(s, advantage[i], 3e-4, 4e-4) / len(logp)
    return loss


def gspo_token(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i 1/|y_i| sum_t min(s_it A_it, clip(s_it, 1 - 3e-4, 1 + 4e-4) A_it), s_it = sg(s_i) pi / sg(pi).

    A_it is GAE's, whitened, and beside it stands the critic's loss 1/G sum_i 1/|y_i| sum_t .5 max(..) / 2.
    """
    old, old_value = floats(w.old_logp_NT, w.mask_NT), floats(w.old_value_NT, w.mask_NT)
    advantage: list[list[float]] = []
    for i, r in enumerate(w.reward_N.tolist()):
        n = len(old[i])
        values = [*old_value[i], 0.0]
        delta = [(r if t == n - 1 else 0.0) + values[t + 1] - values[t] for t in range(n)]
        advantage.append([sum(0.95**k * delta[t + k] for k in range(n - t)) for t in range(n)])
    every = [a for row in advantage for a in row]
    mean, variance = statistics.mean(every), statistics.variance(every)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        s = math.exp(sum(x.item() - o for x, o in zip(row, old[i], strict=True)) / len(row))
        for t, x in enumerate(row):
            a = (advantage[i][t] - mean) / math.sqrt(variance + 1e-8)
            v, target = value[i][t], advantage[i][t] + old_value[i][t]
            bounded = clip(v, old_value[i][t] - 0.2, old_value[i][t] + 0.2)
            first, second = (v - target) ** 2, (bounded - target) ** 2
            term = clipped(s * (x - x.item()).exp(), a, 3e-4, 4e-4) - 0.5 * max(first, second) / 2
            loss = loss - term / len(row) / len(logp)
    return loss


def luspo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i |y_i| min(s_i A_i, clip(s_i, 1 - 2e-3, 1 + 2.5e-3) A_i), mean over prompts: the plain form."""
    old, groups = floats(w.old_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        s = (torch.stack([x - o for x, o in zip(row, old[i], strict=True)]).sum() / len(row)).exp()
        loss = loss - len(row) * clipped(s, advantage[i], 2e-3, 2.5e-3) / len(logp)
    return loss


def gmpo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i (prod_t c_it)^(1/|y_i|) A_i, c_it = min(r, e^.4) if A_i > 0, max(r, e^-.4) if A_i < 0."""
    old, groups = floats(w.old_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        product = torch.ones((), dtype=torch.float64)
        for x, o in zip(row, old[i], strict=True):
            r = (x - o).exp()
            product = product * (clip(r, 0, math.exp(0.4)) if advantage[i] > 0 else clip(r, math.exp(-0.4), math.inf))
        loss = loss - product ** (1 / len(row)) * advantage[i] / len(logp)
    return loss


def cispo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/sum|y_i| sum_i sum_t sg(min(r, 5)) A_i log pi, whose gradient is CISPO's, over prompts and rewards as DAPO."""
    old, length = floats(w.old_logp_NT, w.mask_NT), [len(row) for row in logp]
    advantage, trained = group_advantages(punished(w, length), w.group_N.tolist()), mixed_rows(w)
    total = sum(length[i] for i in trained)
    loss = torch.zeros((), dtype=torch.float64)
    for i in trained:
        for t, x in enumerate(logp[i]):
            loss = loss - min(math.exp(x.item() - old[i][t]), 5.0) * advantage[i] * x / total
    return loss


def sapo(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/G sum_i 1/|y_i| sum_t 4/tau 1/(1 + exp(-tau (r - 1))) A_i, tau 1 if A_i > 0, else 1.05; mean over prompts."""
    old, groups = floats(w.old_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        tau = 1.0 if advantage[i] > 0 else 1.05
        for t, x in enumerate(row):
            gate = 4 / tau / (1 + (-tau * ((x - old[i][t]).exp() - 1)).exp())
            loss = loss - gate * advantage[i] / len(row) / len(logp)
    return loss


def covariances(old: list[list[float]], advantage: list[float]) -> dict[tuple[int, int], float]:
    """(log old - mean log old) (A - mean A) of every token, means over all tokens."""
    mean_old = statistics.fmean(x for row in old for x in row)
    mean_a = statistics.fmean(a for a, row in zip(advantage, old, strict=True) for _ in row)
    return {(i, t): (x - mean_old) * (advantage[i] - mean_a) for i, row in enumerate(old) for t, x in enumerate(row)}


def clip_cov(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/sum|y_i| sum_i sum_t r A_i, without gradient at max(2e-4 N, 1) of the tokens with 1 < cov < 5.

    75 tokens, so one: the middle one of those between the bounds, in the order of their covariance. (With seed 0 no
    token is there, with the others there is.)
    """
    old, groups = floats(w.old_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    cov = covariances(old, advantage)
    between = sorted((place for place, c in cov.items() if 1 < c < 5), key=cov.__getitem__)
    apart = between[len(between) // 2] if between else None
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            r = (x - old[i][t]).exp()
            loss = loss - (r.detach() if (i, t) == apart else r) * advantage[i] / len(cov)
    return loss


def kl_cov(w: zoo.World, logp: Tokens, value: Tokens) -> Tensor:
    """-1/sum|y_i| sum_i sum_t {r A_i - 1 |log r| at the max(2e-3 N, 1) tokens with the largest cov}; here one of 75."""
    old, groups = floats(w.old_logp_NT, w.mask_NT), w.group_N.tolist()
    advantage = group_advantages(w.reward_N.tolist(), groups)
    cov = covariances(old, advantage)
    apart = max(cov, key=cov.__getitem__)
    loss = torch.zeros((), dtype=torch.float64)
    for i, row in enumerate(logp):
        for t, x in enumerate(row):
            log_r = x - old[i][t]
            penalty = 1.0 * log_r.abs() if (i, t) == apart else 0.0
            loss = loss - (log_r.exp() * advantage[i] - penalty) / len(cov)
    return loss


PAPERS: dict[str, Callable[[zoo.World, Tokens, Tokens], Tensor]] = {
    f.__name__: f for f in (reinforce, ppo, grpo, dapo, gspo, gspo_token, luspo, gmpo, cispo, sapo, clip_cov, kl_cov)
}
SCORE_FORM = ("reinforce", "cispo")
"""Papers that write w A log pi, we w A pi / sg(pi): the gradients are equal, the values are not."""


def equation(name: str, w: zoo.World) -> tuple[Tensor, dict[str, Tensor]]:
    """The paper's loss, and its gradients by autograd."""
    logp_NT, value_NT = zoo.leaf(w.logp_NT), zoo.leaf(w.value_NT)
    loss = PAPERS[name](w, scalars(logp_NT, w.mask_NT), scalars(value_NT, w.mask_NT))
    loss.backward()
    gradients = {"logp_BT": logp_NT.grad, "value_BT": value_NT.grad}
    return loss.detach(), {key: g for key, g in gradients.items() if g is not None}


def ours(name: str, w: zoo.World) -> tuple[Tensor, dict[str, Tensor]]:
    """Our loss and gradients over the whole rollout: rows that are not selected have gradient 0."""
    objective = get(name)
    keep_N = objective.select(w.accuracy_PG).repeat_interleave(w.accuracy_PG.shape[1])
    loss, gradients = zoo.loss_and_gradients(objective, *zoo.step(objective, zoo.kept(objective, w)))
    return loss, {key: torch.zeros_like(w.logp_NT).index_put((keep_N,), g) for key, g in gradients.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PAPERS)
def test_preset_is_its_papers_equation(name: str, seed: int) -> None:
    w = zoo.world(seed)
    loss, gradients = ours(name, w)
    paper_loss, paper_gradients = equation(name, w)
    torch.testing.assert_close(gradients, {key: paper_gradients[key] for key in gradients}, **CLOSE)
    assert gradients["logp_BT"].abs().max() > 1e-3
    if name == "reinforce":  # the value of A pi / sg(pi) is A
        length_N = w.mask_NT.sum(dim=1)
        paper_loss = -(length_N * (w.reward_N - w.reward_N.mean())).mean()
    if name == "cispo":  # and here that of sg(min(r, 5)) A
        advantages = group_advantages(punished(w, w.mask_NT.sum(dim=1).tolist()), w.group_N.tolist())
        advantage_N = torch.tensor(advantages, dtype=torch.float64)
        ratio_NT = (w.logp_NT - w.old_logp_NT).exp().clamp(max=5)
        trained_NT = torch.zeros_like(w.mask_NT)
        trained_NT[mixed_rows(w)] = w.mask_NT[mixed_rows(w)]
        paper_loss = -torch.where(trained_NT, ratio_NT * advantage_N[:, None], 0).sum() / trained_NT.sum()
    torch.testing.assert_close(loss, paper_loss, **CLOSE)


@pytest.mark.parametrize("name", [name for name in PAPERS if name not in (*SCORE_FORM, "gspo_token", "clip_cov")])
def test_gradient_by_finite_differences(name: str) -> None:
    """(L(x + h) - L(x - h)) / 2h with h = 1e-6 at twelve tokens; off by O(h^2) + 1e-16 / h.

    Equations with a stopped gradient are no functions to take differences of.
    """
    w = zoo.world(0)
    gradients = ours(name, w)[1]["logp_BT"]
    places = w.mask_NT.nonzero()[::6].tolist()
    for i, t in places:
        shift = torch.zeros_like(w.logp_NT)
        shift[i, t] = 1e-6
        ahead, behind = (
            PAPERS[name](w, scalars(w.logp_NT + sign * shift, w.mask_NT), scalars(w.value_NT, w.mask_NT)).item()
            for sign in (1, -1)
        )
        assert (ahead - behind) / 2e-6 == pytest.approx(gradients[i, t].item(), rel=1e-4, abs=1e-8), (i, t)


def test_the_world_exercises_what_it_should() -> None:
    """Both edges of both clips act on some tokens and not on others; some lengths are punished."""
    w = zoo.world(0)
    length_N = w.mask_NT.sum(dim=1)
    assert (length_N == 7).any() and (length_N == 6).any() and (length_N < 5).any()
    for name in ("ppo", "grpo", "dapo", "gspo"):
        objective = get(name)
        out, batch = zoo.step(objective, zoo.kept(objective, w))
        log_ratio = objective.log_ratio(out, batch)[batch.mask_BT].detach()
        advantage = batch.advantage_BT[batch.mask_BT]
        low, high = math.log(1 - objective.surrogate.low), math.log(1 + objective.surrogate.high)
        cells = {
            (sign, place): int(((advantage * sign > 0) & where).sum())
            for sign in (1, -1)
            for place, where in {
                "below": log_ratio < low,
                "inside": (log_ratio > low) & (log_ratio < high),
                "above": log_ratio > high,
            }.items()
        }
        assert min(cells.values()) > 0, (name, cells)


def test_gspo_without_its_token_form_has_one_gradient_per_response() -> None:
    """grad of s_i A_i, s_i = exp(mean log-ratio), is s_i A_i / |y_i| at each token; the token form must give that."""
    w, gspo_objective = zoo.world(4), get("gspo[surrogate=linear]")
    out, batch = zoo.step(gspo_objective, w)
    _, gradients = zoo.loss_and_gradients(gspo_objective, out, batch)
    logp_NT = zoo.leaf(w.logp_NT)
    length_N = w.mask_NT.sum(dim=1)
    s_N = (torch.where(w.mask_NT, logp_NT - w.old_logp_NT, 0).sum(dim=1) / length_N).exp()
    (-(s_N * batch.advantage_BT[:, 0]).mean()).backward()
    torch.testing.assert_close(gradients["logp_BT"], logp_NT.grad, **CLOSE)
    by_hand = -s_N.detach() * batch.advantage_BT[:, 0] / length_N / 16
    torch.testing.assert_close(gradients["logp_BT"], torch.where(w.mask_NT, by_hand[:, None], 0), **CLOSE)
