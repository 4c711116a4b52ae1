"""Statements about policy-gradient objectives, each with a check that computes its verdict."""

# isort: off  # each registers its cards; order of the table
from rlzoo.lab.claims import clipping, collapse, divergence, groups, lengths, mismatch, selection, values
from rlzoo.lab.claims.card import CLAIMS, Claim, Finding, Result, claim, run

# isort: on

__all__ = [
    "CLAIMS",
    "Claim",
    "Finding",
    "Result",
    "claim",
    "clipping",
    "collapse",
    "divergence",
    "groups",
    "lengths",
    "mismatch",
    "run",
    "selection",
    "values",
]
