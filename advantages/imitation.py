"""Credit of demonstrations: advantage 1 at each token.

    imitation       A_t = 1

Supervised learning as a policy gradient: the data is the sampler, and every token earns 1, without credit from later
tokens.
"""

from __future__ import annotations

import torch

from advantages.credit import Credit
from advantages.estimate import Advantage
from advantages.needs import Need
from advantages.view import RolloutView


class Demonstrated(Advantage, kind="imitation"):
    """A_t = 1 at every token of a demonstration; rewards are ignored.

    The trainer takes the responses from the task instead of sampling them, with old log-probs of 0: the author of a
    demonstration counts as a policy that gives it probability 1.
    """

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.DEMONSTRATION})

    def estimate(self, view: RolloutView) -> Credit:
        return Credit(torch.where(view.mask_NT, torch.ones_like(view.reward_NT), 0))
