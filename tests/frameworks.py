"""The formulas of TRL 1.16.0, verl 1dda039, OpenRLHF 3c3be62 and NeMo RL 7ea279a, as plain loops.

With every constant that they have: denominators with 1e-8, bounds of +-20, variances as E[x^2] - E[x]^2. Each
docstring names file and lines. From rewards to the loss, as functions of one 0-dimensional log-prob per token, so that
autograd gives the formula's own gradient.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives.profiles import PROFILES
from tests.test_papers import Tokens, clip


@dataclass(frozen=True)
class Rows:
    """A rollout as lists: one entry per response, and per token inside it."""

    reward: list[float]
    group: list[int]
    old: list[list[float]]
    ref: list[list[float]]
    old_value: list[list[float]]
    max_length: int

    @property
    def length(self) -> list[int]:
        return [len(row) for row in self.old]

    def peers(self, i: int) -> list[int]:
        return [j for j, g in enumerate(self.group) if g == self.group[i]]


Formula = Callable[[Rows, Tokens, Tokens], Tensor]
Terms = list[list[Tensor]]
Credit = list[list[float]]


# Pieces that the frameworks share.


def total(terms: Terms) -> Tensor:
    return torch.stack([x for row in terms for x in row]).sum()


def token_mean(terms: Terms) -> Tensor:
    return total(terms) / sum(map(len, terms))


def sequence_mean(terms: Terms) -> Tensor:
    return torch.stack([torch.stack(row).sum() / len(row) for row in terms]).mean()


def over_tokens(f: Callable[[int, int], Tensor], rows: Rows) -> Terms:
    return [[f(i, t) for t in range(n)] for i, n in enumerate(rows.length)]


def everywhere(advantage: list[float], rows: Rows) -> Credit:
    return [[a] * n for a, n in zip(advantage, rows.length, strict=True)]


def sg(x: Tensor) -> Tensor:
    return x.detach()


def smaller(x: Tensor, y: Tensor) -> Tensor:
    return x if x <= y else y


def larger(x: Tensor, y: Tensor) -> Tensor:
    return x if x >= y else y


def ppo_clip(r: Tensor, a: float, low: float, high: float) -> Tensor:
    return -smaller(r * a, clip(r, 1 - low, 1 + high) * a)


def mean_log_ratio(new: list[Tensor], old: list[float]) -> Tensor:
    return torch.stack([x - o for x, o in zip(new, old, strict=True)]).sum() / len(old)


def overlong(rows: Rows, capped: bool) -> list[float]:
    """-max(0, len - (Lmax - buffer)) / buffer, buffer a fifth; OpenRLHF holds it above -1, verl and NeMo do not."""
    buffer = 0.2 * rows.max_length
    penalty = [-max(0.0, n - (rows.max_length - buffer)) / buffer for n in rows.length]
    return [r + (max(-1.0, p) if capped else p) for r, p in zip(rows.reward, penalty, strict=True)]


def mixed(rows: Rows) -> list[int]:
    """Rows whose group has a positive std of the unshaped reward (verl-recipe, NeMo); for 0 and 1 also OpenRLHF's."""
    return [i for i in range(len(rows.reward)) if statistics.pstdev([rows.reward[j] for j in rows.peers(i)]) > 0]


def only(rows: Rows, kept: list[int]) -> Rows:
    fields = ("reward", "group", "old", "ref", "old_value")
    return replace(rows, **{name: [getattr(rows, name)[i] for i in kept] for name in fields})


def gae(reward: Credit, value: Credit, lam: float) -> Credit:
    """verl core_algos.py:243-262, PPO's gamma 1: backwards, d = r + V' - V, g = d + lam g'."""
    advantages = []
    for r, v in zip(reward, value, strict=True):
        following, running, row = 0.0, 0.0, []
        for t in reversed(range(len(v))):
            running = r[t] + following - v[t] + lam * running
            following = v[t]
            row.append(running)
        advantages.append(row[::-1])
    return advantages


def charged(rows: Rows, beta: float, bound: float = math.inf) -> Credit:
    """Score on the last token minus beta * k1 at every token (verl ray_trainer; OpenRLHF bounds k1 at 10)."""
    return [
        [-beta * max(min(old[t] - ref[t], bound), -bound) + (r if t == len(old) - 1 else 0.0) for t in range(len(old))]
        for r, old, ref in zip(rows.reward, rows.old, rows.ref, strict=True)
    ]


def to_go(reward: Credit) -> Credit:
    return [[sum(row[t:]) for t in range(len(row))] for row in reward]


def last_only(rows: Rows) -> Credit:
    return [[0.0] * (n - 1) + [r] for r, n in zip(rows.reward, rows.length, strict=True)]


def whitened(credit: Credit, rooted: Callable[[list[float]], float]) -> Credit:
    every = [a for row in credit for a in row]
    mean, inverse = statistics.fmean(every), rooted(every)
    return [[(a - mean) * inverse for a in row] for row in credit]


def value_loss(rows: Rows, value: Tokens, returns: Credit) -> Terms:
    """max((v - R)^2, (clip(v, old +- 0.5) - R)^2), verl core_algos.py:1800-1840, OpenRLHF loss.py."""

    def one(i: int, t: int) -> Tensor:
        v, old, target = value[i][t], rows.old_value[i][t], returns[i][t]
        return larger((v - target) ** 2, (clip(v, old - 0.5, old + 0.5) - target) ** 2)

    return over_tokens(one, rows)


def plus(x: Credit, y: Credit) -> Credit:
    return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(x, y, strict=True)]


# verl, core_algos.py


def verl_group(rows: Rows, by_std: bool = True) -> list[float]:
    """303-330: mean and std with n-1 of the group, eps 1e-6; a group of one has mean 0 and std 1."""
    advantages = []
    for i, r in enumerate(rows.reward):
        peers = [rows.reward[j] for j in rows.peers(i)]
        mean, std = (0.0, 1.0) if len(peers) == 1 else (statistics.mean(peers), statistics.stdev(peers))
        advantages.append((r - mean) / (std + 1e-6) if by_std else r - mean)
    return advantages


def verl_whiten(every: list[float]) -> float:
    """masked_whiten: rsqrt of the unbiased variance + 1e-8."""
    return 1 / math.sqrt(statistics.variance(every) + 1e-8)


def verl_terms(rows: Rows, logp: Tokens, credit: Credit, high: float = 0.2, c: float = 3.0) -> Terms:
    """1158-1250: L = max(-rho A, -clip(rho) A), and for A < 0 min(L, -c A); rho = exp(clamp(., +-20))."""

    def one(i: int, t: int) -> Tensor:
        a = credit[i][t]
        rho = clip(logp[i][t] - rows.old[i][t], -20, 20).exp()
        loss = larger(-rho * a, -clip(rho, 0.8, 1 + high) * a)
        return smaller(loss, -c * a + 0 * rho) if a < 0 else loss

    return over_tokens(one, rows)


def verl_token_mean(terms: Terms) -> Tensor:
    return total(terms) / (sum(map(len, terms)) + 1e-8)


def low_var_kl(x: Tensor, ref: float) -> Tensor:
    """kl_penalty: log-ratio within +-20, estimate within +-10. OpenRLHF bounds only the estimate."""
    d = clip(ref - x, -20, 20)
    return clip(d.exp() - d - 1, -10, 10)


def verl_reinforce(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """603-618, REINFORCE++: reward-to-go per token, whitened."""
    return verl_token_mean(verl_terms(rows, logp, whitened(to_go(last_only(rows)), verl_whiten)))


def verl_ppo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    credit = gae(charged(rows, 0.05), rows.old_value, 0.95)
    critic = 0.5 * verl_token_mean(value_loss(rows, value, plus(credit, rows.old_value)))
    return verl_token_mean(verl_terms(rows, logp, whitened(credit, verl_whiten))) + critic


def verl_grpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    kl = over_tokens(lambda i, t: low_var_kl(logp[i][t], rows.ref[i][t]), rows)
    surrogate = verl_terms(rows, logp, everywhere(verl_group(rows), rows))
    return verl_token_mean(surrogate) + 0.04 * verl_token_mean(kl)


def verl_dr_grpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """seq-mean-token-sum-norm: sum / (sequences * scale); 1140-1206."""
    surrogate = verl_terms(rows, logp, everywhere(verl_group(rows, by_std=False), rows))
    return total(surrogate) / len(rows.reward) / 512


def verl_dapo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    kept = mixed(rows)
    rows, logp = only(replace(rows, reward=overlong(rows, capped=False)), kept), [logp[i] for i in kept]
    return verl_token_mean(verl_terms(rows, logp, everywhere(verl_group(rows), rows), high=0.28, c=10.0))


def verl_cispo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """-sg(clip(rho, 1 - lo, 1 + hi)) A log pi."""
    return verl_token_mean(cispo_terms(rows, logp, verl_group(rows), 0.8, 1.2))


def cispo_terms(rows: Rows, logp: Tokens, a: list[float], floor: float, cap: float) -> Terms:
    return over_tokens(
        lambda i, t: -sg(clip((logp[i][t] - rows.old[i][t]).exp(), floor, cap)) * a[i] * logp[i][t], rows
    )


def verl_gspo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """1545-1620: log s_t = lp - sg(lp) + sg(mean log-ratio), at most 10; seq-mean-token-mean, no dual clip."""
    a = verl_group(rows)

    def one(i: int, t: int) -> Tensor:
        log_s = logp[i][t] - sg(logp[i][t]) + sg(mean_log_ratio(logp[i], rows.old[i]))
        s = log_s.clamp(max=10).exp()
        return larger(-s * a[i], -clip(s, 1 - 3e-4, 1 + 4e-4) * a[i])

    return sequence_mean(over_tokens(one, rows))


# OpenRLHF, models/loss.py and experience_maker.py


def openrlhf_whiten(every: list[float]) -> float:
    """Population variance, at least 1e-8."""
    return 1 / math.sqrt(max(statistics.pvariance(every), 1e-8))


def openrlhf_group(rows: Rows) -> list[float]:
    """group_norm: std with n-1, eps 1e-9."""
    groups = [[rows.reward[j] for j in rows.peers(i)] for i in range(len(rows.reward))]
    std = [statistics.stdev(g) if len(g) > 1 else 0.0 for g in groups]
    return [(r - statistics.mean(g)) / (s + 1e-9) for r, g, s in zip(rows.reward, groups, std, strict=True)]


def openrlhf_terms(rows: Rows, logp: Tokens, credit: Credit, high: float = 0.2) -> Terms:
    """-min(r A, clip(r) A), no dual clip unless asked for."""
    return over_tokens(lambda i, t: ppo_clip((logp[i][t] - rows.old[i][t]).exp(), credit[i][t], 0.2, high), rows)


def openrlhf_reinforce(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return token_mean(openrlhf_terms(rows, logp, whitened(to_go(last_only(rows)), openrlhf_whiten)))


def openrlhf_ppo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    credit = gae(charged(rows, 0.05, bound=10.0), rows.old_value, 0.95)
    critic = 0.5 * token_mean(value_loss(rows, value, plus(credit, rows.old_value)))
    return token_mean(openrlhf_terms(rows, logp, whitened(credit, openrlhf_whiten))) + critic


def openrlhf_grpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    kl = over_tokens(lambda i, t: low_var_kl(logp[i][t], rows.ref[i][t]), rows)
    return token_mean(openrlhf_terms(rows, logp, everywhere(openrlhf_group(rows), rows))) + 0.04 * token_mean(kl)


def openrlhf_dapo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    kept = mixed(rows)
    rows, logp = only(replace(rows, reward=overlong(rows, capped=True)), kept), [logp[i] for i in kept]
    return token_mean(openrlhf_terms(rows, logp, everywhere(openrlhf_group(rows), rows), high=0.28))


def plain_gspo(rows: Rows, logp: Tokens, a: list[float]) -> Tensor:
    """loss.py:170-177: exp(mean log-ratio), its gradient through the mean, broadcast; mean of sequence means."""
    s = [mean_log_ratio(new, old).exp() for new, old in zip(logp, rows.old, strict=True)]
    return sequence_mean(over_tokens(lambda i, t: ppo_clip(s[i], a[i], 3e-4, 4e-4), rows))


def openrlhf_gspo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return plain_gspo(rows, logp, openrlhf_group(rows))


# NeMo RL, algorithms/utils.py:103-200 and loss functions


def nemo_group(rows: Rows) -> list[float]:
    """Leave-one-out mean and std, E[x^2] - E[x]^2 times n / (n - 1); divided by std + 1e-6 only where std > 0."""
    advantages = []
    for i, r in enumerate(rows.reward):
        others = [rows.reward[j] for j in rows.peers(i) if j != i]
        if not others:
            advantages.append(0.0)  # the reward is its own baseline
            continue
        n, mean = len(others), statistics.mean(others)
        variance = (statistics.mean(x * x for x in others) - mean**2) * (n / (n - 1)) if n > 1 else 0.0  # nan_to_num
        std = math.sqrt(variance) if variance > 1e-12 else 0.0  # the square that floats leave of equal rewards
        advantages.append((r - mean) / (std + 1e-6) if std > 0 else r - mean)
    return advantages


def nemo_ppo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """GeneralizedAdvantageEstimator: k1 of calculate_kl (within +-10) at every token, masked_var with n-1, + 1e-8.

    MseValueLossFn without its cliprange: scale 1 times (V - R)^2 / 2, over all valid tokens.
    """
    credit = gae(charged(rows, 0.05, bound=10.0), rows.old_value, 0.95)
    returns = plus(credit, rows.old_value)
    critic = token_mean(over_tokens(lambda i, t: (value[i][t] - returns[i][t]) ** 2, rows))
    return token_mean(openrlhf_terms(rows, logp, whitened(credit, verl_whiten))) + 0.5 * critic


def nemo_grpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """calculate_kl: log-ratio within +-20, k3 times exp(lp - sg(lp)), then within +-10; over all valid tokens."""

    def cost(i: int, t: int) -> Tensor:
        x = logp[i][t]
        d = clip(rows.ref[i][t] - x, -20, 20)
        return clip((x - sg(x)).exp() * (d.exp() - 1 - d), -10, 10)

    kl = over_tokens(cost, rows)
    return token_mean(openrlhf_terms(rows, logp, everywhere(nemo_group(rows), rows))) + 0.04 * token_mean(kl)


def nemo_whole_group(rows: Rows) -> list[float]:
    """use_leave_one_out_baseline: false. Mean and unbiased std of the whole group; divided where std > 0."""
    advantages = []
    for i, r in enumerate(rows.reward):
        own = [rows.reward[j] for j in rows.peers(i)]
        std = statistics.stdev(own) if len(own) > 1 else 0.0
        advantages.append((r - statistics.mean(own)) / (std + 1e-6) if std > 0 else 0.0)
    return advantages


def nemo_dapo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """The recipe's ratio_clip_c 10 bounds A < 0: min(max(-r A, -clip(r) A), -c A)."""
    kept = mixed(rows)
    rows, logp = only(replace(rows, reward=overlong(rows, capped=False)), kept), [logp[i] for i in kept]
    a = nemo_whole_group(rows)

    def one(i: int, t: int) -> Tensor:
        x = ppo_clip((logp[i][t] - rows.old[i][t]).exp(), a[i], 0.2, 0.28)
        return smaller(x, torch.full_like(x, -10.0 * a[i])) if a[i] < 0 else x

    return token_mean(over_tokens(one, rows))


def nemo_cispo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return token_mean(cispo_terms(rows, logp, nemo_group(rows), 1 - 1.0, 1 + 5.0))


def nemo_gspo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return plain_gspo(rows, logp, nemo_group(rows))


# TRL 1.16.0, grpo_trainer.py:3020-3292 and rloo_trainer.py:1654-1834


def trl_group(rows: Rows, scaled: bool = True) -> list[float]:
    """grpo_trainer.py:2764-2787: std with n-1, eps 1e-4. TRL refuses groups of one; we give them 0."""
    groups = [[rows.reward[j] for j in rows.peers(i)] for i in range(len(rows.reward))]
    std = [statistics.stdev(g) if len(g) > 1 else 0.0 for g in groups]
    centred = [r - statistics.mean(g) for r, g in zip(rows.reward, groups, strict=True)]
    return [c / (s + 1e-4) for c, s in zip(centred, std, strict=True)] if scaled else centred


def trl_terms(rows: Rows, logp: Tokens, a: list[float], high: float = 0.2, beta: float = 0.0) -> Terms:
    """-min(c A, clamp(c) A) + beta k3 c, c the token's ratio (`use_bias_correction_kl`)."""

    def one(i: int, t: int) -> Tensor:
        c = (logp[i][t] - rows.old[i][t]).exp()
        d = rows.ref[i][t] - logp[i][t]
        return ppo_clip(c, a[i], 0.2, high) + beta * (d.exp() - d - 1) * c

    return over_tokens(one, rows)


def trl_grpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return sequence_mean(trl_terms(rows, logp, trl_group(rows), beta=0.04))


def trl_bnpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return token_mean(trl_terms(rows, logp, trl_group(rows), beta=0.04))


def trl_dr_grpo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return total(trl_terms(rows, logp, trl_group(rows, scaled=False), beta=0.04)) / (len(rows.reward) * 512)


def trl_dapo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    rows = replace(rows, reward=overlong(rows, capped=True))
    return token_mean(trl_terms(rows, logp, trl_group(rows), high=0.28))


def trl_cispo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """-sg(min(c, epsilon_high)) A log pi: epsilon_high itself, no lower bound."""
    return token_mean(cispo_terms(rows, logp, trl_group(rows), 0.0, 5.0))


def trl_sapo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    a = trl_group(rows)

    def one(i: int, t: int) -> Tensor:
        tau = 1.0 if a[i] > 0 else 1.05
        return -torch.sigmoid(tau * ((logp[i][t] - rows.old[i][t]).exp() - 1)) * 4 / tau * a[i]

    return sequence_mean(over_tokens(one, rows))


def trl_gspo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    return plain_gspo(rows, logp, trl_group(rows))


def trl_luspo(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """mean_i (sum_t l m): the sequence's loss times its length."""
    a = trl_group(rows)
    s = [mean_log_ratio(new, old).exp() for new, old in zip(logp, rows.old, strict=True)]
    return total(over_tokens(lambda i, t: ppo_clip(s[i], a[i], 2e-3, 2.5e-3), rows)) / len(s)


def trl_reinforce(rows: Rows, logp: Tokens, value: Tokens) -> Tensor:
    """RLOO: r - beta sum k1, minus the others' mean; exp(sum log-ratio), clipped; mean over responses."""
    reward = [sum(row) for row in charged(rows, 0.05)]
    terms = []
    for i, r in enumerate(reward):
        others = [reward[j] for j in rows.peers(i) if j != i]
        a = r - statistics.mean(others) if others else 0.0
        terms.append(ppo_clip((mean_log_ratio(logp[i], rows.old[i]) * rows.length[i]).exp(), a, 0.2, 0.2))
    return torch.stack(terms).mean()


FORMULAS: dict[str, Formula] = {
    f"{loss}@{framework}": globals()[f"{framework}_{loss}"] for framework in PROFILES for loss in PROFILES[framework]
}
VALUE_DIFFERS = {
    **{name: "they show w A log pi, we w A; one gradient" for name in FORMULAS if name.startswith("cispo")},
    "reinforce@trl": "they show s A once per response, we at every token; one gradient",
}
