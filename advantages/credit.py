"""`Credit`: the result of an advantage estimator for every response token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Credit:
    """Advantages, and the returns a critic is trained on. No gradient.

    Attributes:
        advantage_NT: how much better than expected each token was; exactly 0 outside the mask.
        return_NT: target of the value function (advantage + value, before whitening); None without a critic.
        learn_NT: bool, the tokens to learn from, if fewer than the mask's; the others leave the loss and its
            denominator.
    """

    advantage_NT: Tensor
    return_NT: Tensor | None = None
    learn_NT: Tensor | None = None

    def mask(self, mask_NT: Tensor) -> Tensor:
        """The tokens of a mask that are learned from."""
        return mask_NT if self.learn_NT is None else mask_NT & self.learn_NT
