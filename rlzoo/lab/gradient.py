"""The zoo's objectives as learners: a tabular policy, Adam, one optimizer step per rollout of G responses.

    responses of the policy --judge--> reward --shape--> credit --objective.loss--> Adam on the logits (and the values)

All computation goes through the objective's parts, as in training. A critic is a table with one value per state; it
starts at 0 and is trained by the objective's value loss. A group that selection drops counts as sampled but causes no
update. With one step per rollout, every ratio is 1. A greedy response that a baseline needs has its exact reward and
costs no episode.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advantages import Need, RolloutView, at_last_token, shape_reward
from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.errors import UserError
from rlzoo.lab import exact, qstar
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.group import SUPPLIED
from rlzoo.lab.learner import Estimate

LEARNING_RATE = 0.1
"""Of Adam, for logits and values. Adam's steps do not depend on the loss's scale, so all objectives share one rate."""


class PolicyLearner:
    """One objective with a tabular policy per seed. The reference is the uniform policy that it starts from."""

    def __init__(self, objective: Objective, episodes: Episodes, group_size: int = 16) -> None:
        """Start at the uniform policy.

        Raises:
            UserError: the objective has a need that this world cannot supply.
        """
        if objective.needs - SUPPLIED:
            raise UserError(
                f"{objective.name} needs {', '.join(sorted(objective.needs - SUPPLIED))}, which the laboratory cannot "
                "supply: leave it out"
            )
        self.name = objective.name
        self.family = "actor-critic" if "value" in objective.needs else "policy-based"
        self._objective, self._at, self._group_size = objective, episodes, group_size
        self._logits_KSV = torch.zeros(episodes.seeds, *episodes.space.next_SV.shape, dtype=torch.float64)
        self._value_KS = torch.zeros(self._logits_KSV.shape[:2], dtype=torch.float64)
        leaves = [self._logits_KSV.requires_grad_(), self._value_KS.requires_grad_()]
        self._optimizer = torch.optim.Adam(leaves, lr=LEARNING_RATE)
        self._states = [objective.initial_states() for _ in range(episodes.seeds)]

    def learn(self, first: int, count: int) -> None:
        for start in range(first, first + count, self._group_size):
            self._step(start, min(self._group_size, first + count - start))

    def _step(self, start: int, size: int) -> None:
        """Sample one rollout of `size` responses per seed, and take one optimizer step."""
        space = self._at.space
        policy_KSV = self._logits_KSV.detach().softmax(dim=-1)
        response_KG = self._at.respond(qstar.probability(policy_KSV, space), start, size)
        judged_KG = self._at.judged(response_KG, start)
        logp_KSV = self._logits_KSV.log_softmax(dim=-1)
        k, mask_KGT = torch.arange(len(response_KG))[:, None, None], space.mask_RT[response_KG]
        s, a = space.state_RT[response_KG], space.token_RT[response_KG]

        def inside(x_KGT: Tensor) -> Tensor:
            return torch.where(mask_KGT, x_KGT, 0)

        logp_KGT, value_KGT = inside(logp_KSV[k, s, a]), inside(self._value_KS[k, s])
        entropy_KGT = inside(-(logp_KSV.exp() * logp_KSV).sum(dim=-1)[k, s])
        needs = self._objective.needs
        seeds = [
            self._credit(seed, response_KG[seed], judged_KG[seed], logp_KGT[seed].detach(), value_KGT[seed].detach())
            for seed in range(len(response_KG))
        ]
        advantage_BT, return_BT, weight_BT = (torch.cat(column) for column in zip(*(s[:3] for s in seeds), strict=True))
        chosen_BT, imitation_BT = (_cat(column) for column in zip(*(s[3:] for s in seeds), strict=True))
        old_logp_BT, old_value_BT = logp_KGT.detach().flatten(0, 1), value_KGT.detach().flatten(0, 1)
        policy = PolicyOutput(
            logp_KGT.flatten(0, 1),
            value_KGT.flatten(0, 1) if "value" in needs else None,
            entropy_KGT.flatten(0, 1) if "entropy" in needs else None,
        )
        batch = TokenBatch(
            mask_BT=mask_KGT.flatten(0, 1),
            weight_BT=weight_BT,
            advantage_BT=advantage_BT,
            old_logp_BT=old_logp_BT,
            ref_logp_BT=inside(self._uniform_logp.expand_as(logp_KGT)).flatten(0, 1) if "ref_logp" in needs else None,
            old_value_BT=old_value_BT if "value" in needs else None,
            return_BT=return_BT if "value" in needs else None,
            chosen_BT=chosen_BT,
            imitation_BT=imitation_BT,
        )
        self._optimizer.zero_grad()
        self._objective.loss(policy, batch).backward()
        self._optimizer.step()

    @property
    def _uniform_logp(self) -> Tensor:
        return -torch.tensor(float(self._at.space.vocabulary), dtype=torch.float64).log()

    def _view(self, seed: int, reward_N: Tensor, response_N: Tensor, logp_NT: Tensor, **given: Tensor) -> RolloutView:
        """Return the view of some responses of one seed, with the fields that the objective needs."""
        mask_NT, objective = self._at.space.mask_RT[response_N], self._objective
        return RolloutView.of(
            at_last_token(reward_N, mask_NT),
            mask_NT,
            torch.zeros(len(response_N), dtype=torch.long),
            max_length=self._at.space.longest,
            logp_NT=logp_NT,
            ref_logp_NT=torch.where(mask_NT, self._uniform_logp, 0),
            accuracy_N=self._at.reward_R[response_N],
            greedy_N=self._greedy_reward(seed).expand(len(response_N)) if Need.GREEDY in objective.needs else None,
            **given,
        ).only(objective.needs)

    def _credit(
        self, seed: int, response_G: Tensor, judged_G: Tensor, logp_GT: Tensor, value_GT: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return advantage, return and weight of the tokens of one seed's group, and if the objective has such parts
        the chosen tokens and the shares of the imitation cost. Weights and shares are 0 if the group is dropped."""
        mask_GT = self._at.space.mask_RT[response_G]
        logp_SV = self._logits_KSV[seed].detach().log_softmax(dim=1)
        collision_GT = self._at.space.at_states((2 * logp_SV).exp().sum(dim=1))[response_G]
        view = self._view(seed, judged_G, response_G, logp_GT, value_NT=value_GT, collision_NT=collision_GT)
        objective = self._objective.at(self._states[seed])
        self._states[seed] = objective.next_states(view)
        credit = objective.credit(view)
        kept = objective.select(self._at.reward_R[response_G][None])[0]
        weight_GT = objective.weigh(credit.mask(mask_GT), view.group_N, torch.float64) * kept
        return_GT = torch.zeros_like(weight_GT) if credit.return_NT is None else credit.return_NT
        entropy_GT = self._at.space.at_states(-(logp_SV.exp() * logp_SV).sum(dim=1))[response_G]
        chosen_GT = objective.choose(logp_GT, credit.advantage_NT, mask_GT, entropy_GT)
        share_GT = objective.imitate(self._at.reward_R[response_G], mask_GT, torch.float64)
        share_GT = None if share_GT is None else share_GT * kept
        return credit.advantage_NT, return_GT, weight_GT, chosen_GT, share_GT

    def _greedy_reward(self, seed: int) -> Tensor:
        """Return the exact reward of the seed's greedy response, a scalar, averaged over ties."""
        greedy_SV = qstar.greedy(self._logits_KSV[seed].detach())
        return qstar.probability(greedy_SV, self._at.space) @ self._at.reward_R

    def estimate(self) -> Estimate:
        policy_KSV = self._logits_KSV.detach().softmax(dim=-1)
        if "value" not in self._objective.needs:
            return Estimate(policy_KSV)
        aim = [self._aim(seed, logits_SV.detach()) for seed, logits_SV in enumerate(self._logits_KSV)]
        return Estimate(policy_KSV, value_KS=self._value_KS.detach().clone(), aim_KS=torch.stack(aim))

    def _aim(self, seed: int, logits_SV: Tensor) -> Tensor:
        """Return V^pi of the shaped reward, the critic's target, [S]."""
        space = self._at.space
        every_R = torch.arange(len(space.mask_RT))
        logp_RT = space.logp_RT(logits_SV.log_softmax(dim=1))
        objective = self._objective.at(self._states[seed])
        reward_RT = shape_reward(objective.shape, self._view(seed, self._at.reward_R, every_R, logp_RT)).reward_NT
        reward_SV = torch.zeros_like(logits_SV)
        reward_SV[space.state_RT[space.mask_RT], space.token_RT[space.mask_RT]] = reward_RT[space.mask_RT]
        return exact.values(logits_SV, space, reward_SV).v_S


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate the parts along the rows; None if all are None."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None
