"""Settings of the engine: how work is batched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlzoo.config.settings import Settings


class EngineSettings(Settings):
    """How work is batched. Changes speed and memory, never results."""

    micro_batch_tokens: int = Field(default=4096, ge=1)
    """Tokens in passes under way, of all runs and processes together; a prompt counts once per group."""
    processes: int | None = Field(default=None, ge=1)
    """Processes that the runs of a fleet are divided among, no more than there are runs; None: on a CPU one per core,
    but no more than leave each a pass worth its calls. Needs Linux and no GPU in sight; else there is one, and more
    cannot be asked for."""
    fast_path: Literal["auto", "off"] = "auto"
    """auto: pack rows without padding, and on a CPU use layers written out for small models, where the model is of a
    kind known to allow it; off: transformers' own forward pass on padded rows. `environment.json` names the path."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass instead of keeping its activations: less memory, about a third more
    time. For models whose passes of `micro_batch_tokens` do not fit."""
    sample_rows: int = Field(default=768, ge=1)
    """Responses that are decoded at once, by all processes together."""
