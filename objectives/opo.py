"""OPO: the minimum-variance baseline, if a gradient's squared norm grows with the response's length.

    grad J = E[ (r_i - b) grad log pi(y_i) ],   b = sum_j l_j r_j / sum_j l_j   over the responses to the prompt

Source: Hao et al., "On-Policy RL with Optimal Reward Baseline", 2505.23585. The minimum-variance baseline is
E[|grad log pi|^2 r] / E[|grad log pi|^2]; with |grad log pi(y)|^2 taken as proportional to l = |y| it is b.

Constants: none. No KL, no entropy term, no clip: it is meant for exactly one update per rollout.
Deviations: tokens of a response add up (our choice; the derivation assumes it). As in verl, a response is part of its
own baseline. This shrinks the expected gradient and, unlike a plain group mean, also tilts it, because a long response
weighs more in its own baseline. The effect is of order 1/G.
When it is inert: at equal lengths it is the group mean; if all rewards are equal it is silent.
Disputed: little was measured outside its paper. The lengths are proxies for gradient norms; `rlzoo lab opo rloo`
computes both variances exactly.
"""

from advantages import RewardToGo
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, SequenceSum
from objectives.registry import register

OPO = register(
    Objective(
        name="opo",
        advantage=RewardToGo(baseline="group_length_mean"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
