"""The Python API, composed of experiments and report: what `rlzoo.compare` and its like do.

The command line calls it too. No command, no training and no drawing is written here, only who is given what. It is a
folder beside `rlzoo/__init__.py`, which only forwards to it, so that `import rlzoo` loads nothing and the command line
imports what it calls without going through the root.
"""

import warnings

# tqdm says this where a notebook has no ipywidgets. Nothing here draws with it.
warnings.filterwarnings("ignore", message="IProgress not found")
