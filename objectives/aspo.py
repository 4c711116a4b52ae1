"""ASPO: the inverse ratio for tokens with positive advantage.

    L = -1/sum_i |y_i| sum_i sum_t sg(w_it) A_i log pi_it,   no gradient where PPO's clip acts
    w = min(1/r, cap) if A > 0,   r if A < 0

Source: 2510.06062.

What it changes: with outcome rewards the token ratio is not an importance weight. As a plain weight it favours good
tokens that are already likely over those that became unlikely. The inverse ratio does the opposite.
Constants: e 0.2 on both sides, cap 3 (clip_ratio_low, _high and _c of the authors' script, zyh1999/ASPO 3b6f753). Token
mean, A_i as GRPO.
Deviations: the cap bounds the weight but keeps the gradient, which is our reading of the paper's soft dual clip. No KL
and one e for all tokens: their script has k3 at 0.001, and e 0.4 for tokens of high entropy.
When it is inert: at one update per rollout.
Disputed: we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Flipped, Token, TokenMean
from objectives.registry import register

ASPO = register(
    Objective(
        name="aspo",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=Flipped(low=0.2, high=0.2, cap=3.0),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
