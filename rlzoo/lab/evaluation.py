"""Estimates of V, Q and A of a policy next to the exact ones: Monte Carlo, k-step returns, TD(lambda), sweeps.

    Monte Carlo     V(s) = mean of the returns G_t of the first visits to s
    k-step          G_t^(k) = sum_{j<k} gamma^j r_{t+j} + gamma^k v(s_{t+k})
    lambda-return   G_t^lam = r_t + gamma ((1 - lam) v(s_{t+1}) + lam G_{t+1}^lam)
    TD(lambda)      v(s) += alpha d_t e_t(s),  d_t = r_t + gamma v(s_{t+1}) - v(s_t),  e_t = gamma lam e_{t-1} + [s_t]
    sweep           v(s) <- sum_a pi(a|s) (r(s, a) + gamma v(s'))

A response visits a prefix at most once, so first-visit and every-visit estimates are the same. v are a critic's values.
Source: Sutton and Barto, 2nd edition, chapters 4 to 7 and 12.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advantages.estimate import reward_to_go
from rlzoo.lab import exact
from rlzoo.lab.space import Space


@dataclass(frozen=True)
class Chain:
    """A policy and its rewards, which determine V, Q and A.

    Attributes:
        reward_SV: r(s, a); rewards before the last token are allowed.
        gamma: the discount.
    """

    space: Space
    logits_SV: Tensor
    reward_SV: Tensor
    gamma: float = 1.0

    @property
    def pi_SV(self) -> Tensor:
        """Token probabilities."""
        return self.logits_SV.softmax(dim=1)

    def exact(self) -> exact.Values:
        """Return V, Q and A by backward recursion."""
        return exact.values(self.logits_SV, self.space, self.reward_SV, self.gamma)

    def ahead(self, v_S: Tensor) -> Tensor:
        """Return r(s, a) + gamma v(s'), [S, V]; v is 0 after the last token."""
        next_SV = self.space.next_SV
        return self.reward_SV + self.gamma * torch.where(next_SV >= 0, v_S[next_SV.clamp(min=0)], 0)

    def gains(self) -> Tensor:
        """Return the return G_t at every token of every response, [R, T]."""
        space = self.space
        reward_RT = torch.where(space.mask_RT, self.reward_SV[space.state_RT, space.token_RT], 0)
        return torch.where(space.mask_RT, reward_to_go(reward_RT, space.mask_RT, self.gamma), 0)

    def sample(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Sample indices of responses from the policy, in any shape."""
        law_R = exact.probability(self.logits_SV, self.space)
        count = int(torch.tensor(shape).prod())
        generator = torch.Generator().manual_seed(seed)
        return law_R.multinomial(count, replacement=True, generator=generator).view(shape)


@dataclass(frozen=True)
class Sampled:
    """Monte Carlo estimates of one or many runs [X]; nan at states without a visit.

    Attributes:
        visits_XS: number of episodes that visit each state.
    """

    v_XS: Tensor
    q_XSV: Tensor
    visits_XS: Tensor

    @property
    def a_XSV(self) -> Tensor:
        """Estimated advantages Q - V."""
        return self.q_XSV - self.v_XS[..., None]


def monte_carlo(chain: Chain, response_XN: Tensor) -> Sampled:
    """First-visit Monte Carlo V and Q from N episodes in each of X runs."""
    space = chain.space
    states, vocabulary = chain.reward_SV.shape
    runs, count = response_XN.shape
    mask = space.mask_RT[response_XN].flatten()
    run = torch.arange(runs)[:, None, None].expand(runs, count, space.longest).flatten()[mask]
    s, a = (x_RT[response_XN].flatten()[mask] for x_RT in (space.state_RT, space.token_RT))
    gain = chain.gains()[response_XN].flatten()[mask]
    place = (run * states + s) * vocabulary + a
    zero = torch.zeros(runs * states * vocabulary, dtype=gain.dtype)
    sum_XSV = zero.index_add(0, place, gain).view(runs, states, vocabulary)
    count_XSV = zero.index_add(0, place, torch.ones_like(gain)).view(runs, states, vocabulary)
    visits_XS = count_XSV.sum(dim=2)
    return Sampled(sum_XSV.sum(dim=2) / visits_XS, sum_XSV / count_XSV, visits_XS)


def monte_carlo_variance(chain: Chain, episodes: int) -> Tensor:
    """Variance of the Monte Carlo V of each state, given at least one visit: Var[G | s] E[1/n | n > 0], [S].

    The number of visits n is binomial, with the probability that a response visits the state.
    """
    law_R = exact.probability(chain.logits_SV, chain.space)
    visits_S = exact.visits(chain.pi_SV, chain.space)
    _, variance_S = return_moments(chain, torch.zeros(len(visits_S), dtype=law_R.dtype), steps=chain.space.longest)
    n = torch.arange(1, episodes + 1, dtype=law_R.dtype)
    log_choose = torch.lgamma(torch.tensor(episodes + 1.0)) - torch.lgamma(n + 1) - torch.lgamma(episodes - n + 1)
    p_S1 = visits_S[:, None].clamp(1e-12, 1 - 1e-12)
    law_SN = (log_choose + n * p_S1.log() + (episodes - n) * (1 - p_S1).log()).exp()
    inverse_S = (law_SN / n).sum(dim=1) / law_SN.sum(dim=1)
    return variance_S * torch.where(visits_S > 1 - 1e-12, 1 / episodes, inverse_S)


def return_moments(chain: Chain, v_S: Tensor, steps: int | None = None, lam: float = 1.0) -> tuple[Tensor, Tensor]:
    """Exact mean and variance of the k-step return (`steps`) or the lambda-return of each state: [S], [S].

    Computed by recursion: the variance over the next token plus the expected variance of the rest.

    Args:
        v_S: the values that returns bootstrap from.
        steps: tokens before bootstrapping; None: the lambda-return.
    """
    pi_SV, next_SV = chain.pi_SV, chain.space.next_SV
    mean_S, variance_S = v_S.clone(), torch.zeros_like(v_S)
    for _ in range(chain.space.longest if steps is None else steps):
        goes_on = mean_S if steps is not None else (1 - lam) * v_S + lam * mean_S
        share = 1.0 if steps is not None else lam**2
        target_SV = chain.ahead(goes_on)
        inner_SV = share * chain.gamma**2 * torch.where(next_SV >= 0, variance_S[next_SV.clamp(min=0)], 0)
        mean_S = (pi_SV * target_SV).sum(dim=1)
        variance_S = (pi_SV * ((target_SV - mean_S[:, None]).square() + inner_SV)).sum(dim=1)
    return mean_S, variance_S


def td_lambda(chain: Chain, response_XN: Tensor, v_S: Tensor, lam: float, alpha: float) -> Tensor:
    """Tabular TD(lambda) with eligibility traces, updated online at each token: v of every run, [X, S].

    Args:
        response_XN: the N episodes of each of X runs, in order.
        v_S: the initial values.
    """
    space, (runs, count) = chain.space, response_XN.shape
    v_XS, x = v_S.expand(runs, -1).clone(), torch.arange(runs)
    for n in range(count):
        trace_XS = torch.zeros_like(v_XS)
        response_X = response_XN[:, n]
        for t in range(space.longest):
            there_X = space.mask_RT[response_X, t]
            s, a = space.state_RT[response_X, t], space.token_RT[response_X, t]
            next_X = space.next_SV[s, a]
            after_X = torch.where(next_X >= 0, v_XS[x, next_X.clamp(min=0)], 0)
            error_X = torch.where(there_X, chain.reward_SV[s, a] + chain.gamma * after_X - v_XS[x, s], 0)
            trace_XS = chain.gamma * lam * trace_XS
            trace_XS[x, s] += there_X.double()
            v_XS = v_XS + alpha * error_X[:, None] * trace_XS
    return v_XS


def sweeps(chain: Chain, v_S: Tensor, count: int) -> list[Tensor]:
    """Iterative policy evaluation: v after 0 to `count` synchronous sweeps over all states."""
    found = [v_S]
    for _ in range(count):
        found.append((chain.pi_SV * chain.ahead(found[-1])).sum(dim=1))
    return found
