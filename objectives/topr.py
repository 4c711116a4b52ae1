"""TOPR: tapered off-policy REINFORCE.

    grad J = E_old[ sum over A > 0 of A grad log pi(y) + sum over A < 0 of sg(min(pi(y) / old(y), 1)) A grad log pi(y) ]

Source: Le Roux et al. 2503.14286.

What it changes: good responses are trained on as in supervised learning, at any ratio. Bad ones lose weight as they
become unlikely, so pushing them down stops by itself.
Constants: the ratio of bad responses is clipped to [0, 1], good ones have weight 1 (the paper's choice).
Deviations: A_i = r_i - mean over the group (our choice; the paper studies a constant baseline).
When it is inert: at one update per rollout every ratio is 1.
Disputed: the role of the baseline. 2503.14286 and AsymRE (2506.20520) agree that it matters more off-policy.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Response, SequenceSum, Tapered
from objectives.registry import register

TOPR = register(
    Objective(
        name="topr",
        advantage=Group(scale="none"),
        ratio=Response(),
        surrogate=Tapered(),
        aggregate=SequenceSum(),
    ),
    page=__doc__,
    family="REINFORCE and its baselines",
    parent="reinforce",
)
