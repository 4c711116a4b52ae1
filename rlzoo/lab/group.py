"""One optimizer step on one group, through the project's own parts, as the trainer takes it.

    rewards --shape--> reward per token --advantage--> credit;   mask --aggregate--> weight;   objective.loss

The rollout is one prompt with G responses and is one optimizer step. What a response contributes to the gradient is
read off the loss by differentiating it, so any objective works, with any parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advantages import Credit, Need, RolloutView, at_last_token, shape_reward
from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.lab.situation import Situation

SUPPLIED = frozenset({Need.GROUP, Need.GREEDY, Need.ACCURACY, Need.VALUE, Need.LOGP, Need.REF_LOGP, Need.ENTROPY})
"""What an objective may need here. The laboratory's responses are its policy's own."""


@dataclass(frozen=True)
class Slopes:
    """Derivatives of minus the loss by each token's log-prob and entropy, and the tokens whose surrogate is flat."""

    logp_XT: Tensor
    entropy_XT: Tensor | None
    flat_XT: Tensor


def inputs(objective: Objective, at: Situation, response_N: Tensor) -> RolloutView:
    """What the estimator may know of some responses to one prompt, with their rewards shaped."""
    space, needs = at.space, objective.needs
    mask_NT = space.mask_RT[response_N]
    old_SV = at.old_logits_SV.log_softmax(dim=1)
    entropy_S = -(old_SV.exp() * old_SV).sum(dim=1)
    view = RolloutView.of(
        at_last_token(at.reward_R[response_N], mask_NT),
        mask_NT,
        torch.zeros(len(response_N), dtype=torch.long),
        max_length=space.longest,
        logp_NT=space.logp_RT(old_SV)[response_N],
        ref_logp_NT=space.logp_RT(at.ref_logits_SV.log_softmax(dim=1))[response_N],
        entropy_NT=space.at_states(entropy_S)[response_N],
        collision_NT=space.at_states((2 * old_SV).exp().sum(dim=1))[response_N],
        value_NT=space.at_states(at.value_S)[response_N],
        accuracy_N=at.accuracy_R[response_N],
        greedy_N=at.greedy_reward.expand(len(response_N)) if Need.GREEDY in needs else None,
    )
    return shape_reward(objective.shape, view.only(needs))


def credit(objective: Objective, view: RolloutView) -> Credit:
    """The objective's credit of responses whose rewards are shaped."""
    return objective.advantage.estimate(objective.advantage.sees(view))


def credit_and_weight(objective: Objective, view: RolloutView) -> tuple[Tensor, Tensor]:
    """Advantage and weight of every token of one group that is one optimizer step."""
    told = credit(objective, view)
    return told.advantage_NT, objective.weigh(told.mask(view.mask_NT), view.group_N, torch.float64)


def chosen(objective: Objective, at: Situation, response_N: Tensor, advantage_NT: Tensor) -> Tensor | None:
    """Tokens of one group that is one optimizer step, that the objective's `tokens` part chooses; None without one."""
    old_SV = at.old_logits_SV.log_softmax(dim=1)
    entropy_NT = at.space.at_states(-(old_SV.exp() * old_SV).sum(dim=1))[response_N]
    return objective.choose(
        at.space.logp_RT(old_SV)[response_N], advantage_NT, at.space.mask_RT[response_N], entropy_NT
    )


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
    (pull_BT,) = torch.autograd.grad(objective.per_token(log_ratio_BT, fixed).sum(), log_ratio_BT)
    flat_BT = (pull_BT == 0) & (advantage_BT != 0) & fixed.mask_BT
    return Slopes(-gradients[0], -gradients[1] if len(gradients) > 1 else None, flat_BT)
