"""REINFORCE++: PPO without a critic, its advantages normalized over the whole rollout.

    L = -1/B sum_i 1/|y_i| sum_t min(r_it A_it, clip(r_it, 1-e, 1+e) A_it),   A = whitened G
    G_it = sum_{k >= t} R_ik,   R_it = r_i at the last token - beta log(pi/ref)_it

Source: Hu et al., REINFORCE++, 2501.03262.

Constants: beta 0.001 (0.01 is common too), gamma 1, e 0.2. Mean and variance run over all tokens of the rollout (n-1,
as verl; OpenRLHF divides by n: `advantage.ddof=0`).
Deviations: none known; a token's G counts the KL from it on, so tokens of a response differ a little.
When it is inert: the clip at one update per rollout. One response per prompt is enough, because no group is compared.
Disputed: the claim that the group's std is biased (numerator and denominator depend on each other) and the rollout's is
not. The rollout's std has a bias of order 1/N. The mean over tokens weighs long responses more, so for unequal lengths
A does not have mean 0 over responses. Prompts of unequal difficulty share one baseline; `-baseline` fixes that.
"""

from advantages import KLInReward, RewardToGo
from objectives.objective import Objective
from objectives.parts import Clip, SequenceMean, Token
from objectives.registry import register

REINFORCE_PP = register(
    Objective(
        name="reinforce_pp",
        shape=(KLInReward(coef=0.001),),
        advantage=RewardToGo(baseline="none", whiten=True),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=SequenceMean(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
