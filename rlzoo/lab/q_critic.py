"""An actor with a Q critic: the critic learns Q of the policy by expected TD, the actor sums over all tokens.

    critic   (r + sum_a' pi(a'|s') Q(s', a') - Q(s, a))^2            over the tokens of a rollout
    actor    sum_t sum_a pi(a|s_t) (Q(s_t, a) - V(s_t)) grad log pi(a|s_t),   V = sum_a pi Q

Sources: Konda and Tsitsiklis 2000; the sum over actions is from Allen et al. 1709.00503 (mean actor-critic). Our
choice, as for the objectives in `gradient`: tables for both, Adam, one step of each per rollout.
"""

from __future__ import annotations

import torch

from rlzoo.lab import exact, qstar
from rlzoo.lab.episodes import Episodes
from rlzoo.lab.gradient import LEARNING_RATE
from rlzoo.lab.learner import Estimate


class QActorCritic:
    """A tabular policy and a table of Q per seed. A `learner.Learner`."""

    family = "actor-critic"
    name = "Q actor-critic"

    def __init__(self, episodes: Episodes, group_size: int = 16) -> None:
        self._at, self._group_size = episodes, group_size
        shape = (episodes.seeds, *episodes.space.next_SV.shape)
        self._logits_KSV = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        self._q_KSV = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        self._optimizer = torch.optim.Adam([self._logits_KSV, self._q_KSV], lr=LEARNING_RATE)

    def learn(self, first: int, count: int) -> None:
        for start in range(first, first + count, self._group_size):
            self._step(start, min(self._group_size, first + count - start))

    def _step(self, start: int, size: int) -> None:
        space = self._at.space
        pi_KSV = self._logits_KSV.detach().softmax(dim=-1)
        response_KG = self._at.respond(qstar.probability(pi_KSV, space), start, size)
        judged_KG = self._at.judged(response_KG, start)
        k, mask_KGT = torch.arange(len(response_KG))[:, None, None], space.mask_RT[response_KG]
        s, a = space.state_RT[response_KG], space.token_RT[response_KG]
        fixed_KSV = self._q_KSV.detach()
        value_KS = (pi_KSV * fixed_KSV).sum(dim=-1)
        next_KGT = space.next_SV[s, a]
        target_KGT = torch.where(next_KGT < 0, judged_KG[..., None], value_KS[k, next_KGT])
        error_KGT = torch.where(mask_KGT, target_KGT - self._q_KSV[k, s, a], 0)
        advantage_KSV = fixed_KSV - value_KS[..., None]
        # The sampled states, every token of each: sum_a pi A grad log pi = grad sum_a pi A with A held fixed.
        climbed_KS = (self._logits_KSV.softmax(dim=-1) * advantage_KSV).sum(dim=-1)
        gain_KGT = torch.where(mask_KGT, climbed_KS[k, s], 0)
        self._optimizer.zero_grad()
        ((error_KGT.square() - gain_KGT).sum() / size).backward()
        self._optimizer.step()

    def estimate(self) -> Estimate:
        pi_KSV = self._logits_KSV.detach().softmax(dim=-1)
        value_KS = (pi_KSV * self._q_KSV.detach()).sum(dim=-1)
        space, reward_SV = self._at.space, self._at.reward_SV
        aim_KS = torch.stack([exact.values(logits_SV, space, reward_SV).v_S for logits_SV in self._logits_KSV])
        return Estimate(pi_KSV, value_KS=value_KS, aim_KS=aim_KS)
