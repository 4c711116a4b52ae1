"""Top entropy: DAPO on the fifth of the tokens with the highest entropy.

    L = -1/sum_i |y_i| sum_i sum_t 1[H_it in the top 20%] min(r_it A_i, clip(r_it, 1-e_low, 1+e_high) A_i)

Source: "Beyond the 80/20 rule", 2506.01939.

What it changes: most tokens merely continue the text; the few with high entropy decide its course, and only they have a
gradient.
Constants: the top 20% (the paper's). The rest as `dapo`.
Deviations: the entropy is the sampling policy's, once per optimizer step; TRL uses the current policy's. The other
tokens stay in the loss's denominator, as in TRL.
When it is inert: if all entropies are equal.
Disputed: whether the other tokens are useless or just have small gradients; a token of entropy 0 has none anyway.
"""

from advantages import Group, Mixed, SoftOverlong
from objectives.objective import Objective
from objectives.parts import Clip, Token, TokenMean, TopEntropy
from objectives.registry import register

TOP_ENTROPY = register(
    Objective(
        name="top_entropy",
        select=Mixed(),
        shape=(SoftOverlong(cache=0.2),),
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.28),
        tokens=TopEntropy(share=0.2),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="dapo",
)
