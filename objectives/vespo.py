"""VESPO: a smooth weight as a function of the whole response's ratio.

    L = -1/sum_i |y_i| sum_i sum_t sg(phi(W_i)) A_i log pi_it
    phi(W) = e^lambda W^k e^(-lambda W),   W_i = pi(y_i) / old(y_i)

Source: 2602.10693; the form is TRL's (`loss_type="vespo"`).

What it changes: the sequence ratio without length normalization and without a clip: phi is 1 at W = 1 and falls on both
sides, faster above 1 for good responses, faster below 1 for bad ones.
Constants: (k, lambda) = (2, 3) for A >= 0, (3, 2) for A < 0; token mean; log W within log 1e-8 and 20 (TRL's). No KL.
Deviations: TRL multiplies W by the sampler's mismatch inside phi; here `correction` multiplies outside.
When it is inert: at one update per rollout phi is 1.
Disputed: we found no independent evaluation.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import GammaWeight, Response, TokenMean
from objectives.registry import register

VESPO = register(
    Objective(
        name="vespo",
        advantage=Group(scale="std"),
        ratio=Response(),
        surrogate=GammaWeight(),
        aggregate=TokenMean(),
    ),
    page=__doc__,
    family="sequence-level",
    parent="gspo",
)
