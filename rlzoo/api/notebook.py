"""Detection of a Jupyter notebook, and its settings for figures."""

from __future__ import annotations

import importlib
import sys


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return bool(shell) and type(shell).__name__ == "ZMQInteractiveShell"


def show_figures() -> None:
    """In a notebook, render a matplotlib figure at the end of a cell, even if pyplot was never imported."""
    if not in_notebook():
        return
    shell = sys.modules["IPython"].get_ipython()
    figure = importlib.import_module("matplotlib.figure").Figure
    if not any(figure in formatter for formatter in shell.display_formatter.formatters.values()):
        importlib.import_module("IPython.core.pylabtools").select_figure_formats(shell, {"png"})
