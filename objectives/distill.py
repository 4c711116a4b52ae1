"""Distill: on-policy distillation from a teacher's log-probs of the policy's own tokens.

    L = -sum_i sum_t r_it A_it / sum_i |y_i|,   A_it = log teacher(y_it | x, y_i<t) - log old(y_it | x, y_i<t)

Source: "On-Policy Distillation", Thinking Machines, October 2025: the reverse KL per token as a negative advantage,
with the importance-sampling loss. Its discount of 0 is gamma here: each token is charged only its own KL.

What it changes: every token gets a reward from the teacher; there is no task reward, group or baseline. The teacher is
another adapter on the same base or another model with the same tokenizer (`train.teacher`).
Constants: gamma 0 (the source). Equal weights for all tokens are our choice.
Deviations: a response that the task cannot score is left out, as in every other objective.
When it is inert: if the teacher equals the policy. The ratio is inert at one update per rollout.
Disputed: whether the KL per token is enough. `advantage.gamma=1` gives the unbiased gradient of the KL of whole
responses, whose noise grows with length.
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
