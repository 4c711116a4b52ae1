"""GMPO: the geometric mean of a response's ratios, in place of their arithmetic mean.

    L = -1/G sum_i exp( 1/|y_i| sum_t c_it ) A_i,   c_it = min(log r_it, e) if A_i > 0, max(log r_it, -e) if A_i < 0
    A_i = (r_i - mean) / std

Source: 2507.20673.

Constants: e = 0.4 in logs, so ratios from 0.67 to 1.49: the paper's (e^-0.4, e^0.4). No KL. A_i as in GRPO.
What it changes: one ratio of 10 among 100 tokens moves the arithmetic mean by 9%, the geometric mean by 2%. Each token
is clipped separately, in logs and with wider bounds; a clipped token stays in the mean. Without the clip this is GSPO's
ratio.
When it is inert: at one update per rollout it is GRPO's sequence mean without KL.
Disputed: the paper reports +4.1 average pass@1 at 7B over GRPO; we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import GeometricMean, SequenceMean, Token
from objectives.registry import register

GMPO = register(
    Objective(
        name="gmpo",
        advantage=Group(scale="std"),
        ratio=Token(),
        surrogate=GeometricMean(low=0.4, high=0.4),
        aggregate=SequenceMean(),
    ),
    page=__doc__,
    family="sequence-level",
    parent="grpo",
)
