"""GDPO: several rewards, each normalized separately.

    A_i = whiten( sum_k (r_ik - mean_k) / (std_k + eps) ),   mean and std over the group, whitened over the rollout

Source: 2601.05242.

What it changes: in a sum of rewards, a reward of small spread has little effect, and different combinations get the
same advantage. Here each reward is normalized first. The reward function returns the rewards by name.
Constants: eps 1e-6 (our choice), weights 1 (write a shape to weigh a reward). Token mean and clip as in `dapo` (our
choice).
Deviations: whitened over the rollout's responses, unbiased std.
When it is inert: with one reward it is GRPO's advantage, whitened.
Disputed: we found no independent evaluation.
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
