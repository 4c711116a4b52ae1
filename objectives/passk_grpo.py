"""Pass@k GRPO: only the best response of a group gets an advantage, its lead over the second best.

    A_best = (r_max - r_second) / (std + eps), all others 0;   the loss is GRPO's

Source: 2503.19595, as in verl (`adv_estimator=grpo_passk`).

What it changes: it maximizes the best of G instead of the mean: a single right response gets an advantage, two do not.
Constants: eps 1e-6, the group's unbiased std (verl's default). Loss, clip and KL as `grpo`.
Deviations: if two share the best reward, the lead is 0 and so is every advantage.
When it is inert: with rewards 0 and 1, in every group with two or more right responses.
Disputed: whether pass@1 training lowers pass@k, which this method is meant to prevent (2504.13837).
"""

from advantages import PassK
from objectives.objective import Objective
from objectives.parts import K3, Clip, SequenceMean, Token
from objectives.registry import register

PASSK_GRPO = register(
    Objective(
        name="passk_grpo",
        advantage=PassK(scale="std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=SequenceMean(),
        kl=K3(coef=0.04),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
