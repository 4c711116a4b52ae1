"""What each fast path of the engine gains: the same work with the plain way in its place, and with all, in turn.

Each is followed by all of them, measured anew: a machine that slows down within minutes would otherwise count as gain.
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


def plain_passes(requests: Sequence[Tokens], budget: int, shares: bool = True) -> Iterator[dict[int, Tensor]]:
    """Rows as they come, in equal shares of every request, padded to whatever is longest."""
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
    "a process on each core": lambda: patch.object(forked, "cores", lambda: 1),
    "packed rows, prompts once": lambda: patch.object(backbone, "can_pack", lambda model: False),
    "passes of whole runs": lambda: patch.multiple(local, passes=plain_passes, passes_together=plain_passes),
    "silent groups left out": lambda: patch.object(Objective, "learns_from", lambda self, batch: batch.mask_BT.any(1)),
    "own weights for each adapter": lambda: patch.object(multi_lora, "MERGED_BYTES", 0),
    "layers of model.cpu": lambda: patch.object(LlamaLayers, "of", lambda *_: None),
    "attention as batched products, layers of model.cpu": lambda: patch.object(attention, "SHORT", 0),
    "finished rows leave the batch": lambda: patch.object(sampler, "COMPACT_BELOW", 0.0),
    "4-bit weights held while in use": lambda: patch.object(
        backbone.Backbone, "held_weights", lambda self: nullcontext()
    ),
    "vocabulary drawn from in blocks": lambda: patch.object(sampler, "BLOCKS_FROM", NEVER_REACHED),
    "head in chunks": lambda: patch.object(log_probs, "CHUNK_ELEMENTS", NEVER_REACHED),
}
"""Fast path -> what puts the plain way in its place."""

LARGE = ("vocabulary drawn from in blocks", "head in chunks")
"""Those for large vocabularies, measured at one of 150,000 tokens."""
OWN_OBJECTIVE = {"silent groups left out": "gspo"}
"""No fast path for an objective with a KL term, as the others are measured with."""


def plain(name: str) -> AbstractContextManager[object]:
    """Within: the plain way in the place of a fast path."""
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
        "Time and memory above the loaded model of the same work without each, over those with all of them: above 1 is "
        "a gain. Median of the turns (smallest..largest)."
    )
    return Table("What each fast path gains", ["without", "work", "time", "memory"], rows, note)
