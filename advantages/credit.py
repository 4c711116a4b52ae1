"""`Credit`: what an advantage estimator says of every response token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Credit:
    """Advantages, and the returns a critic is trained on. No gradient.

    Attributes:
        advantage_NT: how much better than expected each token was; exactly 0 outside the mask.
        return_NT: target of the value function (advantage + value, before whitening); None without a critic.
    """

    advantage_NT: Tensor
    return_NT: Tensor | None = None
