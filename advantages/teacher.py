"""Rewards from a teacher: the difference of its log-prob and the policy's at each of the policy's own tokens.

    teacher         r_t = log teacher(y_t | x, y_<t) - log pi(y_t | x, y_<t)

On-policy distillation (Thinking Machines, October 2025): at tokens of the policy, -r_t estimates the reverse KL of the
next token, KL(pi || teacher). With `reward_to_go(gamma=0)` each token is charged only its own KL; with gamma 1 also the
KL of all later tokens, which gives the gradient of the KL of whole responses.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from advantages.needs import Need
from advantages.shape import Shape
from advantages.view import RolloutView


class TeacherReward(Shape, kind="teacher"):
    """r_t = log teacher - log pi replaces the task's reward; pi is the policy that sampled.

    Responses without a task reward are left out, as in every objective.
    """

    replaces: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.LOGP, Need.TEACHER_LOGP})

    def __call__(self, reward_NT: Tensor, view: RolloutView) -> Tensor:
        return torch.where(view.mask_NT, view.teacher_logp_NT - view.logp_NT, 0).to(reward_NT.dtype)
