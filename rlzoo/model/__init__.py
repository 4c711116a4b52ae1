"""The frozen base model with LoRA adapters: loading, tokenizing, packing, attention, log-probs.

Only this package and `rlzoo.warmstart` import transformers; only this one imports PEFT and bitsandbytes.
Not here: sampling and gradients of runs (`rlzoo.engine`), rewards (`rlzoo.tasks`), losses (`objectives`).
Start with `backbone` (the model), `adapters` (what a run trains) and `log_probs` (what training asks of it).
"""

from __future__ import annotations

import logging

# On import, bitsandbytes logs a hint about an optional CPU kernel that this project never calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
