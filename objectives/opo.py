"""OPO: the baseline of least variance, if a gradient's square grows with the response's length.

    grad J = E[ (r_i - b) grad log pi(y_i) ],   b = sum_j l_j r_j / sum_j l_j   over the responses to the prompt

Source: Hao et al., "On-Policy RL with Optimal Reward Baseline", 2505.23585. The baseline of least variance is
E[|grad log pi|^2 r] / E[|grad log pi|^2]; with |grad log pi(y)|^2 taken as proportional to l = |y| it is b.

Constants: none. No KL, no entropy term, no clip: it is meant for exactly one update per rollout.
Deviations: tokens of a response add up (our choice; it makes b the minimum that the derivation means). As in verl the
own response is in its own baseline, which scales and, unlike a plain group mean, bends the expected gradient: longer
responses are held more to their own reward. The effect is of order 1/G.
When it is inert: at equal lengths it is the group's mean; where all rewards are equal it is silent.
Disputed: little measured outside its paper. The lengths stand for norms that nobody has to guess in a laboratory:
`rlzoo lab opo rloo` shows both variances.
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
