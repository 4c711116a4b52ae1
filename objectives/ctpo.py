"""CTPO: the ratio of everything up to the token, with a clip that widens with its position.

    L = -1/sum_i |y_i| sum_i sum_t min(c_it A_i, clip(c_it, e^(-low sqrt t), e^(high sqrt t)) A_i)
    c_it = prod_{s <= t} r_is;   for A_i < 0 at least e^(dual sqrt t) A_i

Source: 2605.07331 and its authors' code, horizon-llm/CTPO acc4021 (`cum-token-cumprod-la`).

What it changes: the importance weight of a token's gradient is the product up to it: the token's own ratio leaves out
that the prefix was drawn from the old policy, the whole response's brings in the variance of what comes after (and
corrects it; here what comes after stays the old policy's). The product's logarithm spreads like sqrt t, and so do the
edges.
Constants: low 0.025, high 0.05, dual 0.05, power 1/2 (the authors' script). Token mean, no KL, A_i as GRPO (there too).
Deviations: they hold log c below 10, we below 20.
When it is inert: at one update per rollout.
Disputed: nothing independent was found.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import PositionClip, Prefix, TokenMean
from objectives.registry import register

CTPO = register(
    Objective(
        name="ctpo",
        advantage=Group(scale="std"),
        ratio=Prefix(),
        surrogate=PositionClip(low=0.025, high=0.05, dual=0.05),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="sequence-level",
    parent="grpo",
)
