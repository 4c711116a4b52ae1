"""A baseline for every token: rewards weigh as much as the gradient that has gathered up to there.

optimal_token    A_t = G_t - B_t,   B_t = sum_i G_it W_it / sum_i W_it over the responses to the prompt that reach t
                 W_t = sum_{s <= t} |d log pi_s / d logits|^2,   the square is 1 - 2 pi_s + sum_v pi_v^2     2602.07078
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from advantages.credit import Credit
from advantages.estimate import Advantage, reward_to_go
from advantages.needs import Need
from advantages.statistics import group_sum
from advantages.view import RolloutView


class OptimalToken(Advantage, kind="optimal_token"):
    """The optimal token baseline (Li et al. 2602.07078; verl's `optimal_token_baseline`).

    The baseline of least variance weighs returns by squared gradients. W is its proxy from probabilities alone, under
    independent scores of the tokens. Position t counts the tokens that the policy chose.
    `tail`: a token at a position that no other response reaches has nothing to compare with: "zero" leaves it its
    return, as verl does, and so a response alone in its group; "own" gives it advantage 0.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    tail: Literal["zero", "own"] = "zero"

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP, Need.LOGP, Need.COLLISION})

    def estimate(self, view: RolloutView) -> Credit:
        mask_NT = view.mask_NT
        return_NT = reward_to_go(view.reward_NT, mask_NT, 1.0)
        square_NT = 1 - 2 * view.logp_NT.exp() + view.collision_NT
        weight_NT = torch.where(mask_NT, square_NT.clamp(min=0), 0).cumsum(dim=1)
        order_NT = (~mask_NT).to(torch.int8).argsort(dim=1, stable=True)  # the chosen tokens first, one after another
        there_NT = mask_NT.gather(1, order_NT)

        def at_position(x_NT: Tensor) -> Tensor:
            return group_sum(torch.where(there_NT, x_NT.gather(1, order_NT), 0), view.group_N)

        total_NT, reached_NT = at_position(weight_NT), at_position(torch.ones_like(weight_NT))
        baseline_NT = at_position(return_NT * weight_NT) / torch.where(total_NT > 0, total_NT, 1)
        alone = 0.0 if self.tail == "zero" else return_NT.gather(1, order_NT)
        baseline_NT = torch.where(reached_NT > 1, baseline_NT, alone)
        back_NT = torch.zeros_like(return_NT).scatter(1, order_NT, baseline_NT)
        return Credit(torch.where(mask_NT, return_NT - back_NT, 0))
