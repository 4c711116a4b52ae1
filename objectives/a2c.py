"""A2C: advantage actor-critic, policy gradient with a learned baseline.

    L = E_t[ -A_t log pi(a_t | s_t) ] + c1 E_t[ (V(s_t) - R_t)^2 / 2 ],   A_t = G_t - V_old(s_t),   R_t = G_t

Source: Mnih et al., "Asynchronous Methods for Deep Reinforcement Learning", 1602.01783, done synchronously (A2C).

Constants: gamma 1 (language-model practice: one reward at the end); n-step returns with n beyond the longest response,
which is GAE at lambda 1; c1 0.5, a plain squared error, no whitening, no KL (our choices). No entropy bonus, which the
paper has (`entropy=bonus`). `advantage.lam=0` is the one-step actor-critic, whose advantage is the TD error.
Deviations: V_old are the critic's values at sampling time for the whole rollout; they are not recomputed between
updates.
What it is: `ppo` reduced to its critic, without ratio, clip and penalty. At lambda 1 the critic is only a baseline:
wrong values add noise but no bias.
When it is inert: never. But after the first update of a rollout the samples are off-policy, and without a ratio the
gradient is biased. It is meant for one update per rollout.
Disputed: whether a critic's baseline per token beats the group mean (see `ppo`).
"""

from advantages import GAE
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, PlainValueLoss, TokenMean
from objectives.registry import register

A2C = register(
    Objective(
        name="a2c",
        advantage=GAE(gamma=1.0, lam=1.0, whiten=False),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=TokenMean(),
        value=PlainValueLoss(coef=0.5),
    ),
    page=__doc__,
    family="actor-critic",
    parent="reinforce",
)
