"""Work that fits the device: as many rows as fit into the free memory, and half as many after running out of it.

    rows = SHARE * free / (positions * bytes of a cached position + bytes of a row's logits)

Halves give the same results: a row's sample is a function of its counters, and a loss is a plain sum over rows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone

SHARE = 0.6
"""Part of the free memory that keys, values and logits of decoded rows may take; growing and reordering a cache copies
one layer of it at a time."""
LOGITS = 3 * 4
"""Bytes per row and token of the vocabulary while a token is drawn: logits, log-probs and noise in float32."""

Work = TypeVar("Work")
Done = TypeVar("Done")


def free_bytes(device: torch.device) -> int | None:
    """Bytes of a GPU that are free or cached by torch; None on other devices, whose memory the system shares out."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def cache_bytes(backbone: Backbone) -> int:
    """Bytes that one position of one row takes in a key-value cache: 2 * layers * key heads * width * item size."""
    text = backbone.model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * width * backbone.dtype.itemsize


def affordable_rows(backbone: Backbone, positions: int, free: int | None) -> int:
    """Return how many rows of `positions` tokens, prompt included, can be decoded at once in `free` bytes (>= 1)."""
    if free is None:
        return 1 << 30
    return max(1, int(SHARE * free / (positions * cache_bytes(backbone) + LOGITS * backbone.vocab_size)))


def halving(
    pieces: Iterable[Work], do: Callable[[Work], Done], halves: Callable[[Work], list[Work]]
) -> Iterator[tuple[Work, Done]]:
    """Do each piece of work; where memory runs out, split it in halves, then in quarters, and so on.

    Raises:
        UserError: a piece that `halves` returns whole does not fit.
    """
    for piece in pieces:
        left = [piece]
        while left:
            now = left.pop(0)
            try:
                done = do(now)
            except torch.OutOfMemoryError as error:
                smaller = halves(now)
                if len(smaller) < 2:
                    raise UserError(
                        "a single row does not fit into the device's memory: lower train.max_new_tokens, set "
                        f"engine.gradient_checkpointing, or use a smaller model ({str(error).splitlines()[0]})"
                    ) from error
                left = [*smaller, *left]
            else:
                yield now, done
                continue
            gc.collect()  # outside of the handler: its error holds what the failed pass had computed
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
