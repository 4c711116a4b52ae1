"""Gain of each fast path of the engine: the same work without it and with all of them, in turn.

    gain = seconds without it / seconds with all

Each measurement without a path is followed by a new one with all, so that drift of the machine does not count as gain.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from unittest.mock import patch

from rich.console import Console
from torch import Tensor

from benchmarks.speed_models import Shape, write
from benchmarks.speed_probe import probe
from benchmarks.speed_report import Table
from benchmarks.speed_work import COIN, Measured, Work
from objectives import Objective
from rlzoo.engine import forked, local, sampler
from rlzoo.engine.tokens import Tokens
from rlzoo.model import backbone, log_probs, multi_lora
from rlzoo.model.cpu import attention
from rlzoo.model.cpu.llama import LlamaLayers

NEVER_REACHED = 1 << 60


def plain_micro_batches(requests: Sequence[Tokens], budget: int, shares: bool = True) -> Iterator[dict[int, Tensor]]:
    """Yield micro-batches in order: equal shares of every request's rows, padded to the longest."""
    rows = sum(map(len, requests))
    if rows == 0:
        return
    width = max(tokens.token_NT.shape[1] + int(tokens.prompt_length_N.max()) for tokens in requests if len(tokens))
    number = min(math.ceil(rows * width / budget), max(map(len, requests)))
    parts = [(tokens.group_N >= 0).nonzero().flatten().tensor_split(number) for tokens in requests]
    for j in range(number):
        yield {k: part[j] for k, part in enumerate(parts) if len(part[j])}


PLAIN: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "": nullcontext,
    "one process per core": lambda: patch.object(forked, "cores", lambda: 1),
    "packed rows, prompts once": lambda: patch.object(backbone, "can_pack", lambda model: False),
    "micro-batches of whole runs": lambda: patch.multiple(
        local, passes=plain_micro_batches, passes_together=plain_micro_batches
    ),
    "silent groups left out": lambda: patch.object(Objective, "learns_from", lambda self, batch: batch.mask_BT.any(1)),
    "merged weights per adapter": lambda: patch.object(multi_lora, "MERGED_BYTES", 0),
    "layers of model.cpu": lambda: patch.object(LlamaLayers, "of", lambda *_: None),
    "attention as batched products, layers of model.cpu": lambda: patch.object(attention, "SHORT", 0),
    "finished rows leave the batch": lambda: patch.object(sampler, "COMPACT_BELOW", 0.0),
    "4-bit weights kept dequantized": lambda: patch.object(
        backbone.Backbone, "held_weights", lambda self: nullcontext()
    ),
    "vocabulary sampled in blocks": lambda: patch.object(sampler, "BLOCKS_FROM", NEVER_REACHED),
    "head in chunks": lambda: patch.object(log_probs, "CHUNK_ELEMENTS", NEVER_REACHED),
}
"""Fast path -> context manager that replaces it by the plain way."""

LARGE = ("vocabulary sampled in blocks", "head in chunks")
"""Paths for large vocabularies, measured with 150,000 tokens."""
OWN_OBJECTIVE = {"silent groups left out": "gspo"}
"""Objective of paths that do not apply to the default objective, which has a KL term."""


def plain(name: str) -> AbstractContextManager[object]:
    """Within: a fast path is replaced by the plain way."""
    return PLAIN[name]()


def measure(base: Work, runs: int, repeats: int, console: Console) -> Table:
    """Measure with and without each fast path, in turn."""
    together = base.model_copy(update={"runs": runs, "stages": False})
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        large = Work(
            device=base.device,
            threads=base.threads,
            model=str(write(Shape(vocabulary=150_000), Path(folder))),
            task=COIN,
            ends="never",
            prompts_per_step=4,
            group_size=4,
            max_new_tokens=16,
            steps=1,
        )
        works = {
            name: (large if name in LARGE else together).model_copy(
                update={"objective": OWN_OBJECTIVE.get(name, base.objective)}
            )
            for name in PLAIN
            if name
        }
        measured: dict[str, list[tuple[Measured, Measured]]] = {name: [] for name in works}
        for turn in range(repeats):
            for name, work in works.items():
                fresh = work.model_copy(update={"seed": turn * runs})
                without = fresh.model_copy(update={"without": name})
                measured[name].append((probe(without, Measured), probe(fresh, Measured)))
                console.print(f"{turn + 1}/{repeats} without: {name}")
        for name, pairs in measured.items():
            times = [without.seconds / fast.seconds for without, fast in pairs]
            memory = [
                (without.memory - without.loaded_bytes) / (fast.memory - fast.loaded_bytes) for without, fast in pairs
            ]
            load = "1 run, vocabulary 150,000" if name in LARGE else f"{runs} runs, {works[name].objective}"
            spread = f"{median(times):.2f}x ({min(times):.2f}..{max(times):.2f})"
            rows.append([name, load, spread, f"{median(memory):.2f}x"])
    note = (
        "Time, and memory above the loaded model, without each fast path divided by those with all: above 1 is a gain. "
        "Median of the turns (smallest..largest)."
    )
    return Table("Gain of each fast path", ["without", "work", "time", "memory"], rows, note)
