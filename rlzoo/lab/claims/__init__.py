"""Statements about policy-gradient objectives, each with a check that computes its verdict.

Not here: the computations that several checks share (`rlzoo.lab`). Start with `card`, the format of a claim.
"""

from rlzoo.lab.claims.card import CLAIMS, ORIGINS, VERDICTS, Claim, Finding, Result, claim, run

# isort: off
# Importing a module registers its claims; the order of the imports is that of the table.
from rlzoo.lab.claims import collapse
from rlzoo.lab.claims import groups
from rlzoo.lab.claims import lengths
from rlzoo.lab.claims import statistics
from rlzoo.lab.claims import shaping
from rlzoo.lab.claims import selection
from rlzoo.lab.claims import clipping
from rlzoo.lab.claims import values
from rlzoo.lab.claims import divergence
from rlzoo.lab.claims import mismatch
from rlzoo.lab.claims import off_policy
from rlzoo.lab.claims import aims
from rlzoo.lab.claims import entropy
from rlzoo.lab.claims import high_entropy
from rlzoo.lab.claims import optimum
# isort: on

__all__ = [
    "CLAIMS",
    "ORIGINS",
    "VERDICTS",
    "Claim",
    "Finding",
    "Result",
    "aims",
    "claim",
    "clipping",
    "collapse",
    "divergence",
    "entropy",
    "groups",
    "high_entropy",
    "lengths",
    "mismatch",
    "off_policy",
    "optimum",
    "run",
    "selection",
    "shaping",
    "statistics",
    "values",
]
