"""GDPO: several rewards, each normalized by itself.

    A_i = whiten( sum_k (r_ik - mean_k) / (std_k + eps) ),   mean and std over the group, whitened over the rollout

Source: 2601.05242.

What it changes: with one sum of rewards, a reward of small spread drowns in the others, and different combinations get
one advantage; here each has its own scale. A reward function returns them by name.
Constants: eps 1e-6 (our choice), weights 1 (scale a reward's part by a shape of your own). Loss as `dapo`'s token mean
and clip (our choice).
Deviations: whitened over the rollout's responses, unbiased std.
When it is inert: with one reward it is GRPO's advantage, whitened.
Disputed: nothing independent was found.
"""

from advantages import DecoupledRewards
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean
from objectives.registry import register

GDPO = register(
    Objective(
        name="gdpo",
        advantage=DecoupledRewards(),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.28),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
