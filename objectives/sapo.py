"""SAPO: a soft gate in place of the clip.

    L = -1/G sum_i 1/|y_i| sum_t f(r_it) A_i,   f(r) = 4 / tau sigmoid(tau (r - 1)),   A_i = (r_i - mean) / std

Source: 2511.20347.

Constants: tau 1.0 where A > 0, 1.05 where A < 0 (section 5.1). No KL. A_i as in GRPO.
What it changes: the gradient of a token is r A times 4 sigmoid(x) (1 - sigmoid(x)), x = tau (r - 1): 1 at r = 1,
falling smoothly on both sides, never 0. A clip is one-sided and has an edge; the gate also reduces the gradient of good
tokens that became unlikely.
When it is inert: at one update per rollout the slope at r = 1 is A, as without a gate. Within 10% of r = 1 the gate
reduces it by 0.3% at most.
Disputed: we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import SequenceMean, SoftGate, Token
from objectives.registry import register

SAPO = register(
    Objective(
        name="sapo",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=SoftGate(positive=1.0, negative=1.05),
        aggregate=SequenceMean(),
    ),
    page=__doc__,
    family="clips and gates",
    parent="grpo",
)
