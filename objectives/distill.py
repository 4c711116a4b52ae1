"""Distill: on-policy distillation, a teacher's opinion of the policy's own tokens.

    L = -sum_i sum_t r_it A_it / sum_i |y_i|,   A_it = log teacher(y_it | x, y_i<t) - log old(y_it | x, y_i<t)

Source: "On-Policy Distillation", Thinking Machines, October 2025: the reverse KL per token as a negative advantage,
with the importance-sampling loss. Its discount of 0 is the gamma here: each token answers for its own KL alone.

What it changes: the reward is the teacher's, on every token; no task reward, no group, no baseline. The teacher is
another adapter on the same base or another model with the same tokens (`train.teacher`).
Constants: gamma 0 (the source). One weight per token is our choice.
Deviations: a response that the task cannot score is left out, as in every other objective.
When it is inert: with a teacher equal to the policy. The ratio, at one update per rollout.
Disputed: whether local is enough. `advantage.gamma=1` gives the gradient of the KL of whole responses instead, unbiased
and noisier with length.
"""

from advantages import RewardToGo, TeacherReward
from objectives.objective import Objective
from objectives.parts import Linear, Token, TokenMean
from objectives.registry import register

DISTILL = register(
    Objective(
        name="distill",
        shape=(TeacherReward(),),
        advantage=RewardToGo(gamma=0.0),
        ratio=Token(),
        surrogate=Linear(),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="supervised and distilled",
    parent="reinforce",
)
