"""IcePop: tokens on which sampler and trainer disagree are masked.

    L = GRPO's, each token times k_it 1[0.5 <= k_it <= 5],   k_it = old_it / sampler_it

Source: 2510.18855 (Ring-1T).

What it changes: truncation keeps tokens with any mismatch. Here weights outside the interval become 0, so tokens on
which the two engines disagree have no gradient.
Constants: 0.5 and 5 (the paper's). Clip and A_i as `grpo`; token mean, no KL (our choices).
Deviations: none known.
When it is inert: in float32 on one machine, sampler and trainer agree to 1e-5, and every k is 1.
Disputed: masking or truncation: masking drops tokens whose weight truncation would only bound.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenCorrection, TokenMean
from objectives.registry import register

ICEPOP = register(
    Objective(
        name="icepop",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        correction=TokenCorrection(floor=0.5, cap=5.0, beyond="mask"),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
