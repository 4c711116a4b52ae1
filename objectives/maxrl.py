"""MaxRL: divide by the mean, not by the std, and climb the likelihood of being right.

    grad J = 1/N sum_i A_i sum_t grad log pi_it,   A_i = (r_i - mean) / mean over the group, 0 where nothing is right

Source: 2602.02710.

What it changes: with rewards 0 and 1 and rate p the expected gradient is (1 - (1-p)^(G-1)) / p grad p, that of the
truncated series of log p: sum over k < G of (1-p)^k grad p. A prompt that is rarely solved weighs 1/p more.
Constants: none. No ratio, no clip, no KL: the gradient of the first update (our choice; `ratio=token,surrogate=clip`
for more of them).
Deviations: none known in A_i. Where the mean is not above 0 (rewards below 0), A_i is 0.
When it is inert: at G = 2 with rewards 0 and 1 it is twice `grpo`'s mean-only advantage; groups without a right one.
Disputed: nothing independent was found.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Linear, NoRatio, SequenceSum
from objectives.registry import register

MAXRL = register(
    Objective(
        name="maxrl",
        advantage=Group(scale="mean"),
        ratio=NoRatio(),
        surrogate=Linear(),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
