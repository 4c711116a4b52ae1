"""GFPO: sample more, learn from the short ones.

    A_i = (r_i - mean_S) / std_S for i in S, 0 for the others;   S = the shortest k of G;   the loss is GRPO's

Source: Shrivastava et al. 2508.09726.

What it changes: training on short responses keeps the length down, without a penalty in the reward.
Constants: k is half of the group (the paper keeps 6 or 8 of 16 and 8 of 24). `advantage.by=efficient` ranks by reward
per token. Loss and clip as `grpo`; no KL, token mean (our choices).
Deviations: tied responses are kept or dropped together. Dropped responses stay in the loss's denominator.
When it is inert: if all responses have equal length, all tie and all are kept.
Disputed: we found no independent evaluation.
"""

from advantages import FilteredGroup
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean
from objectives.registry import register

GFPO = register(
    Objective(
        name="gfpo",
        advantage=FilteredGroup(keep=0.5, by="short"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
