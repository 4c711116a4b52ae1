"""Credit of demonstrations: each token is worth imitating.

    imitation       A_t = 1

The supervised end of the policy gradient: the sampler is the data, every token earns 1 and nothing of its successors.
"""

from __future__ import annotations

import torch

from advantages.credit import Credit
from advantages.estimate import Advantage
from advantages.needs import Need
from advantages.view import RolloutView


class Demonstrated(Advantage, kind="imitation"):
    """A_t = 1 at every token of a demonstration; rewards are ignored.

    The trainer takes the responses from the task instead of sampling them, with old log-probs of 0: whoever wrote the
    demonstration gave it probability 1.
    """

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DEMONSTRATION})

    def estimate(self, view: RolloutView) -> Credit:
        return Credit(torch.where(view.mask_NT, torch.ones_like(view.reward_NT), 0))
