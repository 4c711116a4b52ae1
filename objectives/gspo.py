"""GSPO: one ratio per response, clipped as a whole.

    L = -1/G sum_i min(s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i),   s_i = (pi(y_i) / old(y_i))^(1/|y_i|)

Source: Zheng et al. 2507.18071, equation 5; the form that carries each token's gradient is the paper's GSPO-token.

Constants: e_low 3e-4, e_high 4e-4 (section 5.1). No KL. A_i as in GRPO.
These clip bounds fit responses of thousands of tokens, where they clip 15% of the tokens (section 5.2). The ratio's
spread falls with the square root of the length: at 8 to 21 tokens they clip 53% to 66%, and bounds of 0.005 and 0.0067
gain 3.9 points there.
When it is inert: at one update per rollout it is GRPO's sequence mean without KL; the paper takes four. A clip of
0.2 hardly ever binds on the length-normalized ratio of a long response.
Disputed: it weighs tokens of long responses less, as GRPO does (LUSPO 2602.05261). The paper's evidence is learning
curves only.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Clip, Sequence, SequenceMean
from objectives.registry import register

GSPO = register(
    Objective(
        name="gspo",
        advantage=Group(scale="std"),
        ratio=Sequence(),
        surrogate=Clip(low=3e-4, high=4e-4),
        aggregate=SequenceMean(),
    ),
    page=__doc__,
    family="sequence-level",
    parent="grpo",
)
