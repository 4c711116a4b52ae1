"""Exact moments of two gradient estimators of an expectation: the score function and reparameterization.

    score function    E[r(a) grad log pi(a)]                 any r; has variance even if r is nearly constant
    pathwise          a = g(theta, e):  E[r'(a) da/dtheta]   r differentiable in a; here a Gaussian policy, and DDPG
    Gumbel-softmax    x = softmax((logits + g) / tau), E[grad r . x]      relaxes a discrete choice; biased for tau > 0

Sources: Williams 1992; Kingma and Welling 1312.6114; Jang et al. 1611.01144; DDPG, Lillicrap et al. 1509.02971.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slope:
    """Mean and variance of the derivative from one sample; the mean is the derivative of `value`."""

    value: float
    mean: float
    variance: float


def two_choices(logit: float, rewards: tuple[float, float]) -> Slope:
    """Score-function estimate of dJ / dlogit, J = p r_0 + (1-p) r_1, p = sigmoid(logit) the probability of choice 0."""
    p = torch.tensor(logit, dtype=torch.float64).sigmoid().item()
    first, second = rewards[0] * (1 - p), -rewards[1] * p  # r (1 - p) and r (0 - p)
    mean = p * first + (1 - p) * second
    return Slope(p * rewards[0] + (1 - p) * rewards[1], mean, p * first**2 + (1 - p) * second**2 - mean**2)


def gumbel_softmax(logit: float, rewards: tuple[float, float], tau: float, points: int = 200001) -> Slope:
    """Gumbel-softmax estimate of the same: derivative of r . softmax((logits + g) / tau), by quadrature over the noise.

    The difference of two Gumbel variables is logistic: x_0 = sigmoid((logit + L) / tau), L = log(u / (1 - u)).
    """
    u = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    x = ((logit + (u / (1 - u)).log()) / tau).sigmoid()
    slope = (rewards[0] - rewards[1]) * x * (1 - x) / tau
    value = rewards[1] + (rewards[0] - rewards[1]) * x.mean()
    return Slope(value.item(), slope.mean().item(), slope.var(correction=0).item())


def gaussian_score(mean: float, deviation: float, best: float) -> Slope:
    """E[r(a) (a - mu) / sigma^2] for a ~ N(mu, sigma^2), r = -(a - best)^2, in closed form.

    With d = mu - best and a = mu + sigma e, r (a - mu)/sigma^2 = -(d + sigma e)^2 e / sigma:
    mean -2 d; second moment E[(d + s e)^4 e^2] / s^2 = d^4/s^2 + 18 d^2 + 15 s^2 (moments 1, 3, 15 of e).
    """
    d, s = mean - best, deviation
    second = d**4 / s**2 + 6 * d**2 * 3 + s**2 * 15
    return Slope(-(d**2) - s**2, -2 * d, second - 4 * d**2)


def gaussian_path(mean: float, deviation: float, best: float) -> Slope:
    """E[r'(mu + sigma e)] = -2 d with variance 4 sigma^2, d = mu - best: the same mean as `gaussian_score`."""
    d, s = mean - best, deviation
    return Slope(-(d**2) - s**2, -2 * d, 4 * s**2)


def ddpg(best: float, steps: int, seed: int, batch: int = 32, rate: float = 0.05) -> tuple[Tensor, Tensor]:
    """Deterministic actor mu and critic Q(a) = w . (1, a, a^2), off-policy from exploration N(mu, 0.5^2).

    At every step the critic fits r = -(a - best)^2 + noise to replayed samples by least squares, and the actor moves
    along Q'(mu). The reward itself is not differentiated.

    Returns:
        mu after every step, [steps + 1], and the critic's slope at mu, [steps].
    """
    generator = torch.Generator().manual_seed(seed)
    mu, replay_a, replay_r = torch.zeros((), dtype=torch.float64), list[Tensor](), list[Tensor]()
    path, slopes = [mu], list[Tensor]()
    for _ in range(steps):
        noise_2B = torch.randn(2, batch, generator=generator, dtype=torch.float64)
        a_B = mu + 0.5 * noise_2B[0]
        replay_a.append(a_B)
        replay_r.append(-(a_B - best).square() + 0.1 * noise_2B[1])
        a, r = torch.cat(replay_a[-20:]), torch.cat(replay_r[-20:])
        features = torch.stack([torch.ones_like(a), a, a.square()], dim=1)
        w = torch.linalg.lstsq(features, r[:, None]).solution[:, 0]
        slopes.append(w[1] + 2 * w[2] * mu)
        mu = mu + rate * slopes[-1]
        path.append(mu)
    return torch.stack(path), torch.stack(slopes)
