"""Tables of what textbooks and notes state in formulas, computed: `rlzoo lab --table NAME`.

Each table prints its arithmetic and draws its figure. What they compute with lives one folder up, in rlzoo.lab.
"""

from rlzoo.lab.textbook.sheet import SHEETS, Sheet, sheet

# isort: off
# Each registers its tables as it is imported; the order is that of the list.
from rlzoo.lab.textbook import values
from rlzoo.lab.textbook import gradients
from rlzoo.lab.textbook import lengths
from rlzoo.lab.textbook import control
# isort: on

__all__ = ["SHEETS", "Sheet", "control", "gradients", "lengths", "sheet", "values"]
