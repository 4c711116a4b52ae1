"""The frozen base model and what is put into it: loading, adapters, packing, log-probs.

The only package that knows transformers, PEFT and bitsandbytes. It knows nothing of runs, rewards or objectives.
"""

from __future__ import annotations

import logging

# Importing bitsandbytes tells every user about an optional CPU kernel, which this project never calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
