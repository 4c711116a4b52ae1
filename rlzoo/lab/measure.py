"""What an objective's gradient is worth: its direction, its scale, its bias, its noise.

    cosine      of the expected gradient E[g] with the true gradient of J, at the policy that is being updated
    scale       s = <E[g], grad J> / |grad J|^2; a learning rate absorbs it, so what follows is about g / s
    bias        |E[g]/s - grad J|^2 / |grad J|^2 = 1 / cosine^2 - 1
    noise       tr Var[g] / (s^2 |grad J|^2) * tokens per step: sampled tokens at which noise equals signal
    error(N)    bias + noise / N: relative mean squared error of the mean of the steps that N sampled tokens pay for

Tokens of groups that were sampled and not trained on are paid for too. The raw numbers stand beside these. Where the
expected gradient does not point uphill (s <= 0, or nothing is left of it) the relative numbers do not exist: nan.
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
"""Standard deviation of the noisy critic's errors, in rewards; one error per state, drawn once."""


@dataclass(frozen=True)
class Setting:
    """Where an objective is measured.

    Attributes:
        success: probability that the base answers right.
        step: distance in parameters that each update moves, along the objective's own expected gradient.
        critic: values that objectives with a critic are given: those of the sampling policy, the same with errors, 0.
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
    """One objective at one update of one setting; see the module's docstring for the meanings.

    Attributes:
        update: 1 is the update right after sampling; later ones learn from samples of the policy before the first.
        cosine_low, cosine_high: 95% interval where groups were sampled; both the cosine itself where it is exact.
        tokens: expected sampled tokens per step, discarded groups included.
        kl_old: KL(old || policy) in nats per response.
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
        """Relative mean squared error of the average over the steps that this many sampled tokens pay for."""
        return self.bias + self.noise / tokens

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def critic_values(world: World, critic: Critic, seed: int = 0, error: float = CRITIC_NOISE) -> Tensor:
    """V of every state as a critic has it."""
    v_S = exact.values(world.logits_SV, world.space, exact.token_reward(world.space, world.reward_R)).v_S
    if critic == "zero":
        return torch.zeros_like(v_S)
    noise_S = torch.randn(v_S.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=v_S.dtype)
    return v_S + error * noise_S if critic == "noisy" else v_S


def updates(
    objective: Objective, world: World, setting: Setting, groups: int = 2000
) -> Iterator[tuple[Situation, Moments]]:
    """Walk through the updates of one rollout along the objective's own expected gradient.

    Each update learns from groups that no earlier update has seen (minibatches, not epochs), so its samples are still
    independent draws of the old policy and its expectation is exact at the policy it meets. The path itself is the
    expected one: every update moves `step` in parameters (as a normalizing optimizer would).
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
    """Measure an objective at every update of a setting, in the parity world; in groups of the size it demands."""
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
    """Put moments into numbers."""
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
        # A resample's mean has the noise of the resample and of the sample.
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
    """Measure objectives at `centre` (all its updates) and at the first update along each axis of `Setting` fields."""
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
