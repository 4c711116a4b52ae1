"""PPO: clipped surrogate, a critic, and KL to the reference in the reward.

    L = E_t[ -min(r_t A_t, clip(r_t, 1-e, 1+e) A_t) ] + c1 E_t[ max((V - R)^2, (clip(V, V_old +- e_v) - R)^2) / 2 ]
    A = GAE(gamma, lambda) of r_t - beta log(pi/ref), whitened over the rollout;   R = A + V, before whitening

Source: Schulman et al. 1707.06347; GAE 1506.02438; for language models Ziegler et al. 1909.08593.

Constants: e = 0.2 (1707.06347, table 1); lambda 0.95 (table 3); gamma 1 (language-model practice: one reward at the
end; the paper has 0.99); beta 0.05, fixed (our choice; set `shape.target` for Ziegler's adaptive one); c1 0.5 and
e_v 0.2 (our choice; the value clip is code, not paper); no entropy bonus (0.01 in the paper, `entropy=bonus`); no dual
clip (`surrogate.dual=3`).
When it is inert: at one update per rollout every ratio is 1 and the clip never acts.
Disputed: whether a critic is worth its cost. VinePPO 2410.01679: critics rank steps hardly better than chance. VAPO
2504.05118: 60 on AIME 2024 against DAPO's 50, but 11 without value pretraining and 33 without decoupled GAE.
"""

from advantages import GAE, KLInReward
from objectives.objective import Objective
from objectives.parts import Clip, ClippedValueLoss, Token, TokenMean
from objectives.registry import register

PPO = register(
    Objective(
        name="ppo",
        shape=(KLInReward(coef=0.05),),
        advantage=GAE(gamma=1.0, lam=0.95, whiten=True),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=TokenMean(),
        value=ClippedValueLoss(coef=0.5, range=0.2),
    ),
    page=__doc__,
    family="actor-critic",
)
