"""MaxRL: dividing by the mean instead of the std maximizes the likelihood of a right answer.

    grad J = 1/N sum_i A_i sum_t grad log pi_it,   A_i = (r_i - mean) / mean over the group, 0 if no response is right

Source: 2602.02710.

What it changes: with rewards 0 and 1 and rate p the expected gradient is (1 - (1-p)^(G-1)) / p grad p, that of the
truncated series of log p: sum over k < G of (1-p)^k grad p. A rarely solved prompt has up to 1/p times the weight.
Constants: none. No ratio, no clip, no KL: it is the gradient of the first update (our choice; for several updates set
`ratio=token,surrogate=clip`).
Deviations: none known in A_i. If the mean is not above 0 (negative rewards), A_i is 0.
When it is inert: at G = 2 with rewards 0 and 1 it is exactly twice `r_i - mean`; a learning rate absorbs the factor.
Groups with equal rewards have advantage 0, as with `r_i - mean`.
Disputed: we found no independent evaluation.
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
