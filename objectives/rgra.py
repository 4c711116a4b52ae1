"""RGRA: GRPO without its ratio and its clip.

    L = -1/G sum_i 1/|y_i| sum_t { A_i log pi_it - beta k3_it },   A_i = (r_i - mean) / std

Source: 2603.18756.

What it changes: only ratio and surrogate, to test whether they matter.
Constants: as `grpo` (beta 0.04).
Deviations: none known.
When it is inert: at one update per rollout it is GRPO. After the first update the samples are off-policy, without a
correction.
Disputed: whether clipping is needed (see `reinforce`).
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import K3, Linear, NoRatio, SequenceMean
from objectives.registry import register

RGRA = register(
    Objective(
        name="rgra",
        advantage=Group(scale="std"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=SequenceMean(),
        kl=K3(coef=0.04),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
