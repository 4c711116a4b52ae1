"""LUSPO: GSPO without its preference for short responses.

    L = -1/G sum_i |y_i| min(s_i A_i, clip(s_i, 1-e_low, 1+e_high) A_i),   s_i = (pi(y_i) / old(y_i))^(1/|y_i|)

Source: 2602.05261.

Constants: e_low 2e-3, e_high 2.5e-3 (TRL's values for the paper). No KL. A_i as in GRPO. Like GSPO's, these bounds are
for long responses: at 8 to 21 tokens they clip 25% to 58%.
What it changes: the factor |y_i| gives tokens of long and short responses equal weight; GSPO and GRPO weigh a token by
1/|y_i|. LUSPO sums over a response's tokens, GSPO takes their mean.
When it is inert: on responses of equal length it is GSPO times that length, and an adaptive optimizer cancels the
factor. At one update per rollout the clip never acts.
Disputed: whether 1/|y_i| is a fault: GRPO has it too, and Dr. GRPO (2503.20783) calls it a bias towards long wrong
responses.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Clip, Sequence, SequenceSum
from objectives.registry import register

LUSPO = register(
    Objective(
        name="luspo",
        advantage=Group(scale="std"),
        ratio=Sequence(),
        surrogate=Clip(low=2e-3, high=2.5e-3),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="sequence-level",
    parent="gspo",
)
