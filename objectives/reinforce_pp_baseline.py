"""REINFORCE++-baseline: the group gives the mean, the rollout gives the scale.

    L = -1/B sum_i 1/|y_i| sum_t { min(r_it A_i, clip(r_it, 1-e, 1+e) A_i) - beta k2_it },   k2 = (log pi/ref)^2 / 2
    A = r_i - mean of the prompt's responses, whitened over all tokens of the rollout

Source: Hu et al., REINFORCE++, 2501.03262, the variant for several responses per prompt.

Constants: e 0.2; beta 0.001 (our choice, `reinforce_pp`'s). Mean and variance over tokens, n-1, as verl.
Deviations: none known. The k2 cost has the gradient of KL(pi || ref) at each visited state (k3 has that of
KL(ref || pi)).
When it is inert: the clip at one update per rollout; the second centring if all lengths are equal.
Disputed: whether dividing by the rollout's std instead of the group's matters. It keeps the relative weights of
prompts; GRPO's std raises those of very easy and very hard prompts. Whitening centres again over tokens, so if lengths
differ, even a prompt that is always right gets a small advantage.
"""

from advantages import RewardToGo
from objectives.objective import Objective
from objectives.parts import K2, Clip, SequenceMean, Token
from objectives.registry import register

REINFORCE_PP_BASELINE = register(
    Objective(
        name="reinforce_pp_baseline",
        advantage=RewardToGo(baseline="group_mean", whiten=True),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=SequenceMean(),
        kl=K2(coef=0.001),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce_pp",
)
