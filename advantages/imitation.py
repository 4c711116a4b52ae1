"""Credit of demonstrations: each token is worth imitating.

    imitation       A_t = 1

The supervised end of the policy gradient: the sampler is the data, every token earns 1 and nothing of its successors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advantages.credit import Credit
from advantages.estimate import Advantage


class Imitation(Advantage, kind="imitation"):
    """A_t = 1 at every token of a demonstration; rewards are not looked at.

    The trainer takes the responses from the task instead of sampling them, with old log-probs of 0: whoever wrote the
    demonstration gave it probability 1.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"demonstration"})

    def __call__(self, reward_NT: Tensor, mask_NT: Tensor, group_N: Tensor, value_NT: Tensor | None = None) -> Credit:
        return Credit(torch.where(mask_NT, torch.ones_like(reward_NT), 0))
