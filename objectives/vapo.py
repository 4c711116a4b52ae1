"""VAPO: PPO with a critic adapted to long answers, and an extra likelihood term for right ones.

    L = -1/sum_i |y_i| sum_i sum_t min(r_it A_it, clip(r_it, 1-e_low, 1+e_high) A_it)
        + mu / N+ sum_{i right} sum_t -log pi(y_it) + critic,   N+ = tokens of the right responses
    A = GAE(1, 1 - 1/(alpha |y_i|)),   the critic's targets are those of GAE(1, 1): the returns

Source: Yue et al. 2504.05118. Length-adaptive GAE, decoupled GAE, token-level loss, clip-higher and the positive
examples' likelihood are cells of this row; value pretraining is the setting `train.value_warmup_steps` (50 in the
paper), group sampling `train.group_size`, and the critic's own rate (twice the policy's) `optimizer.critic_lr` together
with `train.critic=adapter`. A preset sets none of them.

Constants: alpha 0.05, e_low 0.2, e_high 0.28, mu 0.1 (the paper's); advantages whitened over the rollout, c1 0.5 and
the value clip as in `ppo` (our choices), no KL (our choice).
Deviations: sum |y_i| and N+ run over the whole optimizer step. A response is right by the task's accuracy, before any
shaping. The paper's critic is a separate model.
When it is inert: at alpha 0.05 lambda is 0 for every response of up to 20 tokens, which leaves the one-step TD error;
for lambda 0.95 at l tokens set `advantage.alpha` to 20 / l. Clip-higher at one update per rollout. The likelihood term
in a step without a right response.
Disputed: which additions matter. On AIME 2024 the paper reports 60 for the whole and 5 for plain PPO. With one addition
removed it reports: value pretraining 11, decoupled GAE 33, length-adaptive GAE 45, clip-higher 46, token-level loss 53,
the likelihood 54, group sampling 55.
"""

from advantages import LengthAdaptiveGAE
from objectives.objective import Objective
from objectives.parts import Clip, ClippedValueLoss, PositiveLikelihood, Token, TokenMean
from objectives.registry import register

VAPO = register(
    Objective(
        name="vapo",
        advantage=LengthAdaptiveGAE(gamma=1.0, alpha=0.05, critic_lam=1.0, whiten=True),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.28),
        aggregate=TokenMean(),
        value=ClippedValueLoss(coef=0.5, range=0.2),
        imitation=PositiveLikelihood(coef=0.1),
    ),
    page=__doc__,
    family="actor-critic",
    parent="ppo",
)
