"""KL to the reference: the divergence whose gradient an estimator has, in the loss and in the reward.

k1 = log(pi / ref)      k2 = log(pi / ref)^2 / 2      k3 = ref / pi - 1 - log(ref / pi)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from advantages import KLInReward, RewardToGo, RolloutView
from objectives.parts import K1, K2, K3, KL
from rlzoo.lab import exact
from rlzoo.lab.claims.card import LEAST_DRAWS, Finding, claim
from rlzoo.lab.drift import drifted
from rlzoo.lab.policy import Tabular
from rlzoo.lab.single import relative_difference, single
from rlzoo.lab.situation import Situation, first_update
from rlzoo.lab.space import enumerate_responses
from rlzoo.lab.world import World


@cache
def away_from_reference(longest: int) -> Situation:
    """Return an on-policy situation without reward at KL(pi || ref) of a few tenths of a nat."""
    space = enumerate_responses(3, longest)
    policy, free_R = Tabular(space), torch.zeros(len(space.mask_RT), dtype=torch.float64)
    at = first_update(World(space, policy, policy.initial(0), free_R, free_R))
    generator = torch.Generator().manual_seed(4)
    drift_SV = 0.6 * torch.randn(at.logits_SV.shape, generator=generator, dtype=torch.float64)
    return replace(at, ref_logits_SV=at.logits_SV + drift_SV)


def _autograd(at: Situation, divergence: Callable[[Tensor], Tensor]) -> Tensor:
    leaf_SV = at.logits_SV.clone().requires_grad_()
    return torch.autograd.grad(divergence(leaf_SV), leaf_SV)[0]


def reverse(at: Situation) -> Tensor:
    """Gradient of KL(pi || ref) between responses."""
    return _autograd(at, lambda x: exact.kl_divergence(x, at.ref_logits_SV, at.space))


def forward(at: Situation) -> Tensor:
    """Gradient of KL(ref || pi) between responses."""
    return _autograd(at, lambda x: exact.kl_divergence(at.ref_logits_SV, x, at.space))


def local(at: Situation, forwards: bool) -> Tensor:
    """Gradient of sum_s d(s) KL at s, with the visits d(s) of the sampler held fixed."""
    space = at.space
    visits_S = torch.zeros(len(space.prefix_ST), dtype=torch.float64)
    # the sampler's visits
    p_RT = at.old_probability_R[:, None].expand(space.mask_RT.shape)
    visits_S.index_add_(0, space.state_RT[space.mask_RT], p_RT[space.mask_RT])

    def divergence(x_SV: Tensor) -> Tensor:
        log_p, log_q = x_SV.log_softmax(dim=1), at.ref_logits_SV.log_softmax(dim=1)
        if forwards:
            log_p, log_q = log_q, log_p
        return (visits_S * (log_p.exp() * (log_p - log_q)).sum(dim=1)).sum()

    return _autograd(at, divergence)


def in_loss(at: Situation, cost: KL) -> Tensor:
    """Expected gradient of the cost as a loss, summed over the tokens of responses from pi."""
    logp_RT = at.space.logp_RT(at.logp_SV).requires_grad_()
    ref_RT = at.space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))
    (c_RT,) = torch.autograd.grad(cost(logp_RT, ref_RT).sum(), logp_RT)
    return single(at, c_RT, reverse(at)).mean_SV


def in_reward(at: Situation, cost_RT: Tensor) -> Tensor:
    """Expected policy gradient of sum_t cost_t, with the project's reward-to-go."""
    mask_RT = at.space.mask_RT
    credit = RewardToGo(baseline="none")(cost_RT, mask_RT, torch.arange(len(mask_RT)))
    return single(at, credit.advantage_NT, reverse(at)).mean_SV


def _cosine(a: Tensor, b: Tensor) -> float:
    return torch.cosine_similarity(a.flatten(), b.flatten(), 0).item()


@claim(
    name="k1-in-the-loss-does-nothing",
    statement="k1 in the loss has an expected gradient of 0.",
    conditions="on-policy, KL(pi || ref) of a few tenths of a nat",
    origin="lemma",
    source="derived; k1, k2, k3 are Schulman's, 'Approximating KL divergence', 2020",
    how="exact expected gradient on-policy, responses of 1 and of up to 4 tokens",
    expected="supported",
)
def k1_loss() -> Finding:
    sizes = [in_loss(at, K1(coef=1.0)).norm().item() for at in map(away_from_reference, (1, 4))]
    return Finding(max(sizes) < 1e-12, f"|E[g]| = {max(sizes):.0e}", {"norms": sizes})


@claim(
    name="k2-in-the-loss-is-reverse-kl",
    statement="k2 per token in the loss follows the gradient of KL(pi || ref).",
    conditions="on-policy; exact for one token, false for more: the visits of states are held fixed",
    origin="often said",
    source="notes on KL estimators that regard a response as one action",
    how="exact expected gradient against that of KL(pi || ref) between responses, of 1 and of up to 4 tokens",
    expected="refuted",
)
def k2_loss() -> Finding:
    bandit, at = map(away_from_reference, (1, 4))
    one = relative_difference(in_loss(bandit, K2(coef=1.0)), reverse(bandit))
    whole = relative_difference(in_loss(at, K2(coef=1.0)), reverse(at))
    states = relative_difference(in_loss(at, K2(coef=1.0)), local(at, forwards=False))
    return Finding(
        whole < 1e-9,
        f"one token: exact (to {one:.0e}); more tokens: relative difference {whole:.0%}, cosine "
        f"{_cosine(in_loss(at, K2(coef=1.0)), reverse(at)):.2f}, because it is the gradient of the KL of each state "
        f"with the visits held fixed (to {states:.0e})",
        {"one token": one, "responses": whole, "states": states},
    )


@claim(
    name="k2-of-the-response-is-reverse-kl",
    statement="k2 of the whole response's log-ratio in the loss follows the gradient of KL(pi || ref) exactly.",
    conditions="on-policy, log-ratio summed over the response",
    origin="lemma",
    source="derived",
    how="exact expected gradient of k2 of the summed log-ratio against that of KL(pi || ref), responses of up to 4 "
    "tokens",
    expected="supported",
)
def k2_sequence() -> Finding:
    at = away_from_reference(4)
    log_ratio_R = (at.space.logp_RT(at.logp_SV) - at.space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))).sum(dim=1)
    c_RT = log_ratio_R[:, None].expand(at.space.mask_RT.shape)
    gap = relative_difference(single(at, c_RT, reverse(at)).mean_SV, reverse(at))
    return Finding(gap < 1e-9, f"relative difference {gap:.0e}", {"difference": gap})


@claim(
    name="k3-in-the-loss-is-reverse-kl",
    statement="GRPO's k3 in the loss follows the gradient of KL(pi || ref), which it estimates.",
    conditions="on-policy, responses of 1 and of up to 4 tokens",
    origin="often said",
    source="how 2402.03300, section 4.1, equation 4 is commonly read",
    how="exact expected gradient against those of KL(pi || ref) and KL(ref || pi)",
    expected="refuted",
)
def k3_loss() -> Finding:
    bandit, at = map(away_from_reference, (1, 4))
    k3 = K3(coef=1.0)
    one = relative_difference(in_loss(bandit, k3), forward(bandit))
    states = relative_difference(in_loss(at, k3), local(at, forwards=True))
    return Finding(
        relative_difference(in_loss(bandit, k3), reverse(bandit)) < 1e-9,
        f"one token: it is the gradient of KL(ref || pi) (to {one:.0e}); more tokens: that of KL(ref || pi) at each "
        f"state, visits of pi held fixed (to {states:.0e}), cosine {_cosine(in_loss(at, k3), reverse(at)):.2f} with "
        "KL(pi || ref), "
        f"{_cosine(in_loss(at, k3), forward(at)):.2f} with KL(ref || pi) between responses",
        {"one token": one, "states": states},
    )


@claim(
    name="k1-in-the-reward-is-reverse-kl",
    statement="k1 in the reward, with reward-to-go, follows the gradient of KL(pi || ref) exactly.",
    conditions="on-policy, gamma 1, reward-to-go",
    origin="paper",
    source="2512.21852, section 3; 1909.08593, section 2",
    how="the project's KL shaper and reward-to-go, responses of up to 4 tokens",
    expected="supported",
)
def k1_reward() -> Finding:
    at = away_from_reference(4)
    logp_RT, ref_RT = at.space.logp_RT(at.logp_SV), at.space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))
    nothing_RT, group_R = torch.zeros_like(logp_RT), torch.arange(len(logp_RT))
    view = RolloutView.of(nothing_RT, at.space.mask_RT, group_R, logp_NT=logp_RT, ref_logp_NT=ref_RT)
    reward_RT = KLInReward(coef=1.0)(nothing_RT, view)
    gap = relative_difference(-in_reward(at, reward_RT), reverse(at))
    return Finding(gap < 1e-9, f"relative difference {gap:.0e}", {"difference": gap})


@claim(
    name="k3-in-the-reward-is-biased",
    statement="k3 in the reward has an unbiased value, and its gradient is not that of KL(pi || ref).",
    conditions="on-policy, gamma 1, reward-to-go, responses of up to 4 tokens",
    origin="paper",
    source="2512.21852, section 3",
    how="exact expected policy gradient of k3 per token as a cost against the gradient of KL(pi || ref)",
    expected="supported",
)
def k3_reward() -> Finding:
    at = away_from_reference(4)
    logp_RT, ref_RT = at.space.logp_RT(at.logp_SV), at.space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))
    cost_RT = torch.where(at.space.mask_RT, K3(coef=1.0)(logp_RT, ref_RT), 0)
    value = (at.old_probability_R * cost_RT.sum(dim=1)).sum().item()
    kl = exact.kl_divergence(at.logits_SV, at.ref_logits_SV, at.space).item()
    found = in_reward(at, cost_RT)
    gap = relative_difference(found, reverse(at))
    return Finding(
        abs(value - kl) < 1e-12 and gap > 1e-3,
        f"its value is unbiased ({value:.4f} = {kl:.4f}), its gradient differs by {gap:.0%}, cosine "
        f"{_cosine(found, reverse(at)):.2f}: it lacks the gradient of k3 itself, which is that of KL(ref || pi) at "
        "each state",
        {"difference": gap, "value": value, "kl": kl},
    )


@claim(
    name="k3-times-the-ratio-is-reverse-kl",
    statement="k3 in the loss, multiplied by the token ratio with its gradient, follows the gradient of KL(pi || ref) "
    "at each state, also off-policy; without the ratio it does not.",
    conditions="20 policies moved by KL 0.2 from the sampler; the sampler's visits of states are held fixed, so this "
    "is not the KL between responses",
    origin="paper",
    source="2512.02556 (DeepSeek-V3.2), section 3.1, equation 7",
    how="exact expected gradient of the project's k3 with correction=ratio against that of the states' KL, on- and "
    "off-policy",
    expected="supported",
)
def k3_times_ratio() -> Finding:
    corrected: list[float] = []
    plain: list[float] = []
    for draw in range(LEAST_DRAWS):
        base = away_from_reference(4)
        at = drifted(base, 0.2, draw) if draw else base
        space = at.space
        old_RT, ref_RT = (space.logp_RT(x.log_softmax(dim=1)) for x in (at.old_logits_SV, at.ref_logits_SV))
        target_SV = local(at, forwards=False)
        for part, gaps in ((K3(coef=1.0, correction="ratio"), corrected), (K3(coef=1.0), plain)):
            leaf_RT = space.logp_RT(at.logp_SV).requires_grad_()
            cost_RT = part(leaf_RT, ref_RT, part.weight(leaf_RT, leaf_RT - old_RT))
            (c_RT,) = torch.autograd.grad(cost_RT.sum(), leaf_RT)
            gaps.append(relative_difference(single(at, c_RT, target_SV).mean_SV, target_SV))
    return Finding(
        max(corrected) < 1e-9 and min(plain) > 1e-3,
        f"relative difference with the ratio at most {max(corrected):.0e}, without it {min(plain):.0%} to "
        f"{max(plain):.0%}",
        {"with": corrected, "without": plain},
        arithmetic=[
            "sum_a old(a) (pi(a)/old(a)) k3(a) = sum_a pi(a) (ref/pi - 1 + log pi/ref) = KL(pi || ref) at the state"
        ],
    )
