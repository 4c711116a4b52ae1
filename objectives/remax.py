"""ReMax: REINFORCE with the greedy response as the baseline.

    grad J = E[ sum_t (r(x, y) - r(x, y_greedy)) grad log pi(y_t | x, y_<t) ]

Source: Li et al., 2310.10505.

What it changes: the baseline is the reward of the greedy response, one more response per prompt. It needs no other
samples of the prompt (a group of one is enough) and no critic.
Constants: gamma 1. No ratio, no clip, no KL (`shape=kl` charges it).
Deviations: the paper's experiments are RLHF with a KL whose constants we could not verify, so none is set here. If the
greedy response cannot be scored, the baseline is 0.
When it is inert: if the greedy response earns 0, nothing is subtracted. If it earns 1 (rewards 0 and 1), right samples
have advantage 0 and wrong ones -1: the update only pushes down.
Disputed: the quality of this baseline. It is unbiased, because it does not depend on the sample. But it is the reward
of one response, 0 or 1, while the group mean lies in between. The greedy tokens count as cost (`tokens_sampled`) and
are never trained on: with groups of G they are about 1 in G + 1.
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
