"""One optimizer step on one group, computed by the objective's parts as in the trainer.

    rewards --shape--> reward per token --advantage--> credit;   mask --aggregate--> weight;   objective.loss

The rollout is one prompt with G responses and is one optimizer step. A response's contribution to the gradient comes
from differentiating the loss, so this works for any objective.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advantages import Credit, Need, RolloutView, at_last_token, shape_reward
from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.lab.situation import Situation

SUPPLIED = frozenset({Need.GROUP, Need.GREEDY, Need.ACCURACY, Need.VALUE, Need.LOGP, Need.REF_LOGP, Need.ENTROPY})
"""The needs of an objective that the laboratory supplies. Its responses are always sampled by the policy itself."""


@dataclass(frozen=True)
class Slopes:
    """Derivatives of minus the loss with respect to each token's log-prob and entropy.

    Attributes:
        flat_XT: tokens whose surrogate has slope 0 although their advantage is not 0, as in a clip.
    """

    logp_XT: Tensor
    entropy_XT: Tensor | None
    flat_XT: Tensor


def inputs(objective: Objective, at: Situation, response_N: Tensor) -> RolloutView:
    """Return the estimator's view of some responses to one prompt, with shaped rewards."""
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
    """Return the objective's credit for responses with shaped rewards."""
    return objective.advantage.estimate(objective.advantage.sees(view))


def credit_and_weight(objective: Objective, view: RolloutView) -> tuple[Tensor, Tensor]:
    """Return advantage and weight of every token of one group that is one optimizer step."""
    found = credit(objective, view)
    return found.advantage_NT, objective.weigh(found.mask(view.mask_NT), view.group_N, torch.float64)


def chosen(objective: Objective, at: Situation, response_N: Tensor, advantage_NT: Tensor) -> Tensor | None:
    """Return the tokens that the objective's `tokens` part chooses in a group; None without such a part."""
    old_SV = at.old_logits_SV.log_softmax(dim=1)
    entropy_NT = at.space.at_states(-(old_SV.exp() * old_SV).sum(dim=1))[response_N]
    return objective.choose(
        at.space.logp_RT(old_SV)[response_N], advantage_NT, at.space.mask_RT[response_N], entropy_NT
    )


def imitated(objective: Objective, at: Situation, response_N: Tensor) -> Tensor | None:
    """Return each token's share of the imitation cost in a group; None without such a cost."""
    return objective.imitate(at.accuracy_R[response_N], at.space.mask_RT[response_N], torch.float64)


def keeps(objective: Objective, at: Situation, response_N: Tensor) -> bool:
    """Whether the objective's selection keeps this group."""
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
    """Return the loss's arguments for any rows. The critic's values are constants, which move no policy parameter."""
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
    """Differentiate the loss of any rows. A loss is a plain sum over rows, so rows of several groups are allowed."""
    out, fixed = batch(objective, at, response_B, advantage_BT, weight_BT, chosen_BT, imitation_BT)
    leaves = [out.logp_BT] if out.entropy_BT is None else [out.logp_BT, out.entropy_BT]
    gradients = torch.autograd.grad(objective.loss(out, fixed), leaves, materialize_grads=True)
    log_ratio_BT = objective.log_ratio(replace(out, logp_BT=out.logp_BT.detach()), fixed).requires_grad_()
    (pull_BT,) = torch.autograd.grad(objective.per_token(log_ratio_BT, fixed).sum(), log_ratio_BT)
    flat_BT = (pull_BT == 0) & (advantage_BT != 0) & fixed.mask_BT
    return Slopes(-gradients[0], -gradients[1] if len(gradients) > 1 else None, flat_BT)
