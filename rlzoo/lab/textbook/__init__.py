"""Computed tables of formulas from textbooks and lecture notes: `rlzoo lab --table NAME`.

Each table prints its arithmetic and draws its figure. Not here: the computations themselves (`rlzoo.lab`). Start with
`sheet`, the registry.
"""

from rlzoo.lab.textbook.sheet import SHEETS, Sheet, sheet

# isort: off
# Importing a module registers its tables; the order of the imports is that of the list.
from rlzoo.lab.textbook import values
from rlzoo.lab.textbook import gradients
from rlzoo.lab.textbook import lengths
from rlzoo.lab.textbook import control
# isort: on

__all__ = ["SHEETS", "Sheet", "control", "gradients", "lengths", "sheet", "values"]
