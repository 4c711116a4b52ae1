"""What the laboratory asks of anything that learns from sampled episodes, whichever family it is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """What a learner believes and would do, one entry per seed.

    Attributes:
        policy_KSV: token probabilities of the policy that it samples from, or would answer with.
        q_KSV: its action values; None for a learner without.
        value_KS: the value of each state that it learns from: what a value-based learner bootstraps from, or a critic's
            opinion of the policy; None for a learner without.
        aim_KS: exactly what `value_KS` estimates; None where that is.
    """

    policy_KSV: Tensor
    q_KSV: Tensor | None = None
    value_KS: Tensor | None = None
    aim_KS: Tensor | None = None


class Learner(Protocol):
    """Learns from episodes in their order."""

    name: str
    family: str

    def learn(self, first: int, count: int) -> None:
        """Sample and learn from the episodes `first` to `first + count`."""
        ...

    def estimate(self) -> Estimate:
        """Return what it believes now."""
        ...
