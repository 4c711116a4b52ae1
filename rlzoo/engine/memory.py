"""Work that fits the device: as many rows as fit into the free memory, and half as many after running out of it.

    rows decoded = SHARE * free / (positions * bytes of a cached position + bytes of a row's logits)
    prompts prefilled at once, and tokens of a training pass, in the same way from what their activations take

Halves give the same results: a row's sample is a function of its counters, and a loss is a plain sum over rows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from rlzoo.config.sizes import activation_bytes
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone

SHARE = 0.6
"""Part of the free memory that any of these may take; growing and reordering a cache copies one layer of it at a time,
and a pass has gradients, and logits in pieces, besides its activations."""
LOGITS = 3 * 4
"""Bytes per row and token of the vocabulary while a token is drawn: logits, log-probs and noise in float32."""
PREFILL = 4 * 4
"""Bytes per prompt token and inner unit of an MLP during prefill: gate, up, their product, and the copy in float32 that
an adapter takes."""

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


def prefill_bytes(backbone: Backbone) -> int:
    """Bytes that one prompt token takes while its prompt is prefilled: in the widest layer, and in the cache."""
    text = backbone.model.config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return PREFILL * inner + cache_bytes(backbone)


def affordable_rows(backbone: Backbone, positions: int, free: int | None, prompt: int = 0, group: int = 1) -> int:
    """Return how many rows of `positions` tokens, prompt included, can be decoded at once in `free` bytes (>= 1).

    Args:
        prompt: tokens of the longest prompt; all prompts of the rows are prefilled at once, each of them for `group`
            rows.
    """
    if free is None:
        return 1 << 30
    decoding = positions * cache_bytes(backbone) + LOGITS * backbone.vocab_size
    prefilling = prompt * prefill_bytes(backbone) / group
    return max(1, int(SHARE * free / max(decoding, prefilling)))


def affordable_tokens(backbone: Backbone, free: int | None, checkpointing: bool, graphs: int = 1) -> int:
    """Return how many tokens one forward and backward pass can have in `free` bytes (>= 1).

    Args:
        graphs: forward passes that are kept at one time: two where a critic is an adapter of its own.
    """
    if free is None:
        return 1 << 30
    text = backbone.model.config.get_text_config()
    compute = "fp32" if backbone.dtype == torch.float32 else "bf16"
    of_token = activation_bytes(text.hidden_size, text.num_hidden_layers, compute, checkpointing)
    return max(1, int(SHARE * free / (graphs * of_token)))


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
