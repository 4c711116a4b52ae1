"""Settings of the engine: how work is batched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlzoo.config.settings import Settings


class EngineSettings(Settings):
    """How work is batched. Changes speed and memory, never results."""

    micro_batch_tokens: int = Field(default=4096, ge=1)
    """Maximum tokens of the forward passes that run at one time, over all processes; a prompt counts once per group."""
    processes: int | None = Field(default=None, ge=1)
    """Number of processes that share the runs of a fleet, at most one per run; None: on a CPU one per core, or fewer if
    the passes would become too small. Several processes need Linux and no visible GPU."""
    fast_path: Literal["auto", "off"] = "auto"
    """auto: for model types known to allow it, pack rows without padding, and on a CPU use layers optimized for small
    models; off: transformers' own forward pass on padded rows. `environment.json` records the path."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass instead of keeping its activations: less memory, about a third more
    time. For models whose passes of `micro_batch_tokens` do not fit."""
    sample_rows: int = Field(default=768, ge=1)
    """Maximum number of responses decoded at once, over all processes."""
