"""Direction, scale, bias and noise of an objective's gradient, compared with the true gradient of J.

    cosine      of the expected gradient E[g] with grad J, at the policy that is being updated
    scale       s = <E[g], grad J> / |grad J|^2; a learning rate can absorb it, so bias and noise are those of g / s
    bias        |E[g]/s - grad J|^2 / |grad J|^2 = 1 / cosine^2 - 1
    noise       tr Var[g] / (s^2 |grad J|^2) * tokens per step: sampled tokens at which noise equals signal
    error(N)    bias + noise / N: relative mean squared error of the mean gradient of N sampled tokens

Sampled tokens include those of groups that selection discards. If the expected gradient does not point uphill (s <= 0,
or E[g] = 0), bias, noise and error are nan; the absolute numbers are always there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from objectives import Objective
from rlzoo.lab import exact
from rlzoo.lab.moments import Moments, moments
from rlzoo.lab.policy import Kind
from rlzoo.lab.situation import Geometry, Situation, first_update
from rlzoo.lab.world import World, make_world

Critic = Literal["exact", "noisy", "zero"]
CRITIC_NOISE = 0.3
"""Standard deviation of the noisy critic's errors, in rewards; one fixed error per state."""


@dataclass(frozen=True)
class Setting:
    """World and moment at which an objective is measured.

    Attributes:
        group_size: responses per prompt and step.
        longest, vocabulary: tokens of a response at most, and of the vocabulary.
        success: probability that the base answers right.
        updates: updates per rollout.
        policy: "tabular" or "transformer".
        critic: values for objectives with a critic: exact ones of the sampling policy, the same with errors, or 0.
        step: length in parameters of each update, along the objective's own expected gradient.
        seed: of the base and the critic's errors, and of sampling where moments are sampled.
    """

    group_size: int = 8
    longest: int = 4
    success: float = 0.25
    updates: int = 1
    vocabulary: int = 3
    policy: Kind = "tabular"
    critic: Critic = "exact"
    step: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """One objective at one update of one setting; the module docstring defines cosine, scale, bias and noise.

    Attributes:
        update: 1 is the first update after sampling.
        cosine_low, cosine_high: 95% interval if groups were sampled; both equal the cosine if it is exact.
        squared_bias: |E[g] - grad J|^2, not rescaled.
        variance: tr Var[g], not rescaled.
        squared_gradient: |grad J|^2.
        tokens: expected sampled tokens per step, including discarded groups.
        kept: probability that selection keeps a group.
        clip_fraction: share of tokens with slope 0 although their advantage is not 0.
        kl_old: KL(old || policy) in nats per response.
        method: how the moments were computed, as in `Moments.method`.
    """

    objective: str
    setting: Setting
    update: int
    cosine: float
    cosine_low: float
    cosine_high: float
    scale: float
    bias: float
    noise: float
    squared_bias: float
    variance: float
    squared_gradient: float
    tokens: float
    kept: float
    clip_fraction: float
    kl_old: float
    method: str

    def error(self, tokens: float) -> float:
        """Return the relative mean squared error of the mean gradient of this many sampled tokens."""
        return self.bias + self.noise / tokens

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def critic_values(world: World, critic: Critic, seed: int = 0, error: float = CRITIC_NOISE) -> Tensor:
    """Return a critic's value of every state, [S].

    Args:
        error: standard deviation of the noisy critic's errors, in rewards.
    """
    v_S = exact.values(world.logits_SV, world.space, exact.token_reward(world.space, world.reward_R)).v_S
    if critic == "zero":
        return torch.zeros_like(v_S)
    noise_S = torch.randn(v_S.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=v_S.dtype)
    return v_S + error * noise_S if critic == "noisy" else v_S


def updates(
    objective: Objective, world: World, setting: Setting, groups: int = 2000
) -> Iterator[tuple[Situation, Moments]]:
    """Yield the situation and moments at each update of one rollout along the objective's own expected gradient.

    Each update uses groups that no earlier update has used (minibatches, not epochs). So its samples are independent
    draws of the old policy, and its expectation is exact at the current policy. Every update moves `step` in
    parameters, as a normalizing optimizer would.
    """
    at = first_update(world, critic_values(world, setting.critic, setting.seed))
    theta_M = world.theta_M
    for update in range(setting.updates):
        found = moments(objective, at, setting.group_size, groups=groups, seed=setting.seed + update)
        yield at, found
        direction_M = at.geometry.parameters(found.mean_SV)
        theta_M = theta_M + setting.step * direction_M / direction_M.norm().clamp(min=1e-12)
        logits_SV = world.policy.logits_SV(theta_M).detach()
        at = replace(at, logits_SV=logits_SV, geometry=Geometry(world.policy.jacobian(theta_M)))


def measure(objective: Objective, setting: Setting, groups: int = 2000) -> list[Measurement]:
    """Measure an objective at every update of a setting, in the parity world.

    An objective with a fixed group size is measured in groups of that size. `groups` are sampled if no exact sum
    applies.

    Raises:
        UserError: a world that cannot be made, or an objective that cannot be measured (`moments`).
    """
    own = replace(setting, group_size=objective.group_size or setting.group_size)
    world = make_world(
        success=setting.success,
        longest=setting.longest,
        vocabulary=setting.vocabulary,
        kind=setting.policy,
        seed=setting.seed,
    )
    return [
        replace(measured(objective.name, own, update, at, found), setting=setting)
        for update, (at, found) in enumerate(updates(objective, world, own, groups), start=1)
    ]


def measured(name: str, setting: Setting, update: int, at: Situation, found: Moments) -> Measurement:
    """Return the measurement of an objective's moments."""
    true_SV, geometry = at.true_gradient_SV, at.geometry
    signal = geometry.dot(true_SV, true_SV)
    tokens = setting.group_size * at.tokens / found.kept
    square = geometry.dot(found.mean_SV, found.mean_SV)
    along = geometry.dot(found.mean_SV, true_SV)
    if found.sample_XSV is not None:  # the mean of n noisy gradients is longer than their expectation
        square = max(square - found.variance / len(found.sample_XSV), along**2 / signal)
    cosine, scale = _cosine(along, square, signal), along / signal
    low, high = (cosine, cosine) if found.sample_XSV is None else _interval(found.sample_XSV, true_SV, at)
    uphill = cosine > 1e-9
    return Measurement(
        objective=name,
        setting=setting,
        update=update,
        cosine=cosine,
        cosine_low=low,
        cosine_high=high,
        scale=scale,
        bias=max(1 / cosine**2 - 1, 0.0) if uphill else math.nan,
        noise=found.variance / (scale**2 * signal) * tokens if uphill else math.nan,
        squared_bias=max(square - 2 * along + signal, 0.0),
        variance=found.variance,
        squared_gradient=signal,
        tokens=tokens,
        kept=found.kept,
        clip_fraction=found.clip_fraction,
        kl_old=exact.kl_divergence(at.old_logits_SV, at.logits_SV, at.space).item(),
        method=found.method,
    )


def _cosine(along: float, square: float, signal: float) -> float:
    return along / math.sqrt(square * signal) if square > 1e-30 else 0.0


def _interval(sample_XSV: Tensor, true_SV: Tensor, at: Situation) -> tuple[float, float]:
    """95% percentile bootstrap interval of the cosine, over the sampled groups."""
    count = len(sample_XSV)
    generator = torch.Generator().manual_seed(0)
    signal = at.geometry.dot(true_SV, true_SV)
    flat = sample_XSV.flatten(1)
    lowered = at.geometry.lowered(sample_XSV).flatten(1)
    own_X, along_X = (flat * lowered).sum(dim=1), lowered @ true_SV.flatten()
    cosines: list[float] = []
    for _ in range(200):
        weight_X = torch.bincount(torch.randint(count, (count,), generator=generator), minlength=count) / count
        mean = weight_X.double() @ flat
        square = (mean * (weight_X.double() @ lowered)).sum().item()
        variance = (weight_X @ own_X.to(weight_X.dtype)).item() - square
        along = (weight_X.double() @ along_X).item()
        # The mean of a resample contains the noise of the sample and that of the resampling.
        cosines.append(_cosine(along, max(square - 2 * variance / count, along**2 / signal), signal))
    low, high = torch.tensor(cosines).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def sweep(
    objectives: Sequence[Objective],
    centre: Setting,
    axes: dict[str, Sequence[float]],
    groups: int = 2000,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Measure objectives at `centre` (all its updates), and at the first update for each value of `axes`.

    Args:
        axes: fields of `Setting` with their values, varied one at a time.
        progress: called with a line of text before each measurement.

    Raises:
        UserError: as `measure`.
    """
    rows: list[Measurement] = []
    for objective in objectives:
        progress(objective.name)
        rows += measure(objective, centre, groups)
        for field, points in axes.items():
            for x in points:
                if x != getattr(centre, field):
                    progress(f"{objective.name}: {field} {x:g}")
                    rows += measure(objective, replace(centre, updates=1, **{field: x}), groups)
    return rows
