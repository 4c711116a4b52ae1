"""The Python API: `rlzoo.compare`, `ablate`, `train`, `evaluate`, `reproduce`, `load`, and their results.

It composes experiments and reports; the command line calls it too. Not here: training (`rlzoo.training`), comparisons
(`rlzoo.experiments`), drawing (`rlzoo.report`). `rlzoo/__init__.py` forwards to this package lazily, so that
`import rlzoo` loads nothing. Start with `calls`.
"""

import warnings

# tqdm says this where a notebook has no ipywidgets. Nothing here draws with it.
warnings.filterwarnings("ignore", message="IProgress not found")
