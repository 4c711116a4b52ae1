"""One optimizer step on one group, through the project's own parts, as the trainer takes it.

    rewards --shape--> reward per token --advantage--> credit;   mask --aggregate--> weight;   objective.loss

The rollout is one prompt with G responses and is one optimizer step. What a response contributes to the gradient is
read off the loss by differentiating it, so any objective can be asked, whatever its parts are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advantages import Credit, ShapeContext, at_last_token, shape_reward
from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.lab.situation import Situation

SUPPLIED = frozenset({"group", "greedy", "accuracy", "value", "ref_logp", "entropy"})
"""What an objective may need here. The laboratory's responses are its policy's own."""


@dataclass(frozen=True)
class Inputs:
    """What the trainer hands to the estimators, for any rows: responses of a group, or all responses there are.

    Attributes:
        reward_NT: shaped reward of every token.
        value_NT: the critic's value before every token, None unless needed.
        greedy_N: the greedy response's reward at every row, None unless needed.
    """

    reward_NT: Tensor
    mask_NT: Tensor
    value_NT: Tensor | None
    greedy_N: Tensor | None = None

    def rows(self, index: Tensor) -> Inputs:
        value_NT = None if self.value_NT is None else self.value_NT[index]
        greedy_N = None if self.greedy_N is None else self.greedy_N[index]
        return Inputs(self.reward_NT[index], self.mask_NT[index], value_NT, greedy_N)

    def credit(self, objective: Objective, group_N: Tensor) -> Credit:
        """The objective's credit of these rows."""
        more = {} if self.greedy_N is None else {"greedy_N": self.greedy_N}
        return objective.advantage(self.reward_NT, self.mask_NT, group_N, self.value_NT, **more)


@dataclass(frozen=True)
class Slopes:
    """Derivatives of minus the loss by each token's log-prob and entropy, and the tokens whose surrogate is flat."""

    logp_XT: Tensor
    entropy_XT: Tensor | None
    flat_XT: Tensor


def inputs(objective: Objective, at: Situation, response_N: Tensor) -> Inputs:
    """Shape the rewards of some responses and look up their values."""
    space, needs = at.space, objective.needs
    mask_NT = space.mask_RT[response_N]
    ref_NT = space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))[response_N] if "ref_logp" in needs else None
    old_NT = space.logp_RT(at.old_logits_SV.log_softmax(dim=1))[response_N]
    states = [part.initial_state() for part in objective.shape]
    context = ShapeContext(mask_NT, old_NT, ref_NT, space.longest)
    reward_NT, _ = shape_reward(objective.shape, at_last_token(at.reward_R[response_N], mask_NT), context, states)
    value_NT = space.at_states(at.value_S)[response_N] if "value" in needs else None
    greedy_N = at.greedy_reward.expand(len(response_N)) if "greedy" in needs else None
    return Inputs(reward_NT, mask_NT, value_NT, greedy_N)


def credit_and_weight(objective: Objective, given: Inputs) -> tuple[Tensor, Tensor]:
    """Advantage and weight of every token of one group that is one optimizer step."""
    group_N = torch.zeros(len(given.mask_NT), dtype=torch.long)
    credit = given.credit(objective, group_N)
    return credit.advantage_NT, objective.aggregate(given.mask_NT, torch.float64)


def chosen(objective: Objective, at: Situation, response_N: Tensor, advantage_NT: Tensor) -> Tensor | None:
    """Tokens of one group that is one optimizer step, that the objective treats apart; None if it never does."""
    old_NT = at.space.logp_RT(at.old_logits_SV.log_softmax(dim=1))[response_N]
    return objective.choose(old_NT, advantage_NT, at.space.mask_RT[response_N])


def imitated(objective: Objective, at: Situation, response_N: Tensor) -> Tensor | None:
    """Each token's share of the imitation cost in one group that is one optimizer step; None without such a cost."""
    return objective.imitate(at.accuracy_R[response_N], at.space.mask_RT[response_N], torch.float64)


def keeps(objective: Objective, at: Situation, response_N: Tensor) -> bool:
    """True if the objective trains on this group."""
    return bool(objective.select(at.accuracy_R[response_N][None])[0])


def batch(
    objective: Objective,
    at: Situation,
    response_B: Tensor,
    advantage_BT: Tensor,
    weight_BT: Tensor,
    chosen_BT: Tensor | None = None,
    imitation_BT: Tensor | None = None,
) -> tuple[PolicyOutput, TokenBatch]:
    """The loss's arguments for any rows. The critic is a table of its own: its loss moves no policy parameter."""
    space, needs = at.space, objective.needs
    logp_BT = space.logp_RT(at.logp_SV)[response_B].requires_grad_()
    entropy_BT = None
    if "entropy" in needs:
        entropy_S = -(at.logp_SV.exp() * at.logp_SV).sum(dim=1)
        entropy_BT = space.at_states(entropy_S)[response_B].requires_grad_()
    value_BT = space.at_states(at.value_S)[response_B] if "value" in needs else None
    fixed = TokenBatch(
        mask_BT=space.mask_RT[response_B],
        weight_BT=weight_BT,
        advantage_BT=advantage_BT,
        old_logp_BT=space.logp_RT(at.old_logits_SV.log_softmax(dim=1))[response_B],
        ref_logp_BT=space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))[response_B] if "ref_logp" in needs else None,
        old_value_BT=value_BT,
        return_BT=value_BT,
        chosen_BT=chosen_BT,
        imitation_BT=imitation_BT,
    )
    return PolicyOutput(logp_BT, value_BT, entropy_BT), fixed


def slopes(
    objective: Objective,
    at: Situation,
    response_B: Tensor,
    advantage_BT: Tensor,
    weight_BT: Tensor,
    chosen_BT: Tensor | None = None,
    imitation_BT: Tensor | None = None,
) -> Slopes:
    """Differentiate the loss of any rows. A loss is a plain sum over rows, so they need not be one group."""
    out, fixed = batch(objective, at, response_B, advantage_BT, weight_BT, chosen_BT, imitation_BT)
    leaves = [out.logp_BT] if out.entropy_BT is None else [out.logp_BT, out.entropy_BT]
    gradients = torch.autograd.grad(objective.loss(out, fixed), leaves, materialize_grads=True)
    log_ratio_BT = objective.log_ratio(replace(out, logp_BT=out.logp_BT.detach()), fixed).requires_grad_()
    (pull_BT,) = torch.autograd.grad(objective.gain(log_ratio_BT, fixed).sum(), log_ratio_BT)
    flat_BT = (pull_BT == 0) & (advantage_BT != 0) & fixed.mask_BT
    return Slopes(-gradients[0], -gradients[1] if len(gradients) > 1 else None, flat_BT)
