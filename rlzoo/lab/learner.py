"""The protocol of learners that learn from sampled episodes: value-based, policy-based or actor-critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A learner's current policy and values, one entry per seed.

    Attributes:
        policy_KSV: token probabilities of its policy: the greedy one of a value-based learner, else the sampler.
        q_KSV: its action values; None for a learner without.
        value_KS: its state values: those that a value-based learner bootstraps from, or a critic's; None for a learner
            without.
        aim_KS: the exact values that a critic estimates; None without a critic.
    """

    policy_KSV: Tensor
    q_KSV: Tensor | None = None
    value_KS: Tensor | None = None
    aim_KS: Tensor | None = None


class Learner(Protocol):
    """Learns from episodes in order. `name` and `family` are for tables."""

    name: str
    family: str

    def learn(self, first: int, count: int) -> None:
        """Sample the episodes `first` to `first + count - 1` and learn from them."""
        ...

    def estimate(self) -> Estimate:
        """Return the current policy and values."""
        ...
