"""ReMax: REINFORCE with the greedy response as the baseline.

    grad J = E[ sum_t (r(x, y) - r(x, y_greedy)) grad log pi(y_t | x, y_<t) ]

Source: Li et al., 2310.10505.

What it changes: the baseline is what the policy earns without chance, one more response per prompt. It needs no other
samples of the prompt (a group of one will do) and no critic.
Constants: gamma 1. No ratio, no clip, no KL (`shape=kl` charges it).
Deviations: the paper's experiments are RLHF with a KL, whose constants we could not verify: none is set here. A greedy
response that cannot be scored is a baseline of 0.
When it is inert: where the greedy response earns 0, nothing is subtracted. Where it earns 1 of rewards 0 and 1, right
samples have advantage 0 and wrong ones -1: then it only pushes down.
Disputed: how good this baseline is. It is unbiased although it depends on the policy, as it does not depend on the
sample; but it is one response's reward, 0 or 1 where the mean of a group lies between. The greedy tokens are paid for
(`tokens_sampled`) and never trained on: with groups of G they are about 1 in G + 1.
"""

from advantages import RewardToGo
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, SequenceSum
from objectives.registry import register

REMAX = register(
    Objective(
        name="remax",
        advantage=RewardToGo(baseline="greedy"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
