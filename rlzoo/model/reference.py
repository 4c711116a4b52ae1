"""Logits of the untouched model on a few tokens. After layers are replaced, every path must reproduce them.

    |ours - reference| <= tolerance * |reference - its mean over the vocabulary|        root mean squares of logits

The model runs as transformers loaded it, before any layer is replaced. The same run shows which linear layers receive
whole rows [B, T, ..]: only these can have one adapter per row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LENGTHS = (6, 4)
"""Lengths of the compared rows. They differ, so that positions and masks of padded rows are tested too."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest accepted relative error of the logits. Rounding to bfloat16 gives 0.01 to 0.05."""


@dataclass(frozen=True)
class Reference:
    """Logits of the untouched model.

    Attributes:
        token_BT: rows of `LENGTHS` tokens, padded on the right with tokens that are not compared.
        logits_BTV: float32.
        whole_rows: names of the linear layers whose input was all rows, [B, T, ..].
    """

    token_BT: Tensor
    logits_BTV: Tensor
    whole_rows: frozenset[str]

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any, linears: dict[str, nn.Module]) -> Reference:
        """Run the model once, without padding and without a cache. `linears`: the layers to observe, by name."""
        shape = len(LENGTHS), max(LENGTHS)
        embedding = model.get_input_embeddings().weight
        token_BT = (7 * torch.arange(math.prod(shape), device=embedding.device) + 3).view(shape) % len(embedding)
        seen: set[str] = set()

        def watch(name: str) -> Any:
            return lambda module, args: seen.add(name) if args and tuple(args[0].shape[:2]) == shape else None

        hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears.items()]
        try:
            with _no_repacking(linears):
                logits = model(input_ids=token_BT, use_cache=False).logits.float()
        finally:
            for hook in hooks:
                hook.remove()
        return cls(token_BT, logits, frozenset(seen))

    @property
    def rows(self) -> list[list[int]]:
        """The tokens of each row, without padding."""
        return [row[:length] for row, length in zip(self.token_BT.tolist(), LENGTHS, strict=True)]

    def error(self, logits: list[Tensor]) -> float:
        """Return the relative error of logits, a tensor [n, V] for the last n tokens of each row; nan if not finite."""
        total = scale = 0.0
        for row, (ours, length) in enumerate(zip(logits, LENGTHS, strict=True)):
            theirs = self.logits_BTV[row, length - len(ours) : length]
            total += float((ours.float() - theirs).square().sum())
            scale += float((theirs - theirs.mean(dim=1, keepdim=True)).square().sum())
        return math.sqrt(total / scale) if scale else total

    def agrees(self, logits: list[Tensor], dtype: torch.dtype) -> bool:
        """Whether logits (as in `error`) equal the untouched model's up to rounding."""
        return self.error(logits) <= TOLERANCE[dtype]  # false for nan


@contextmanager
def _no_repacking(linears: dict[str, nn.Module]) -> Iterator[None]:
    """Within: 4-bit layers of bitsandbytes keep their format. In eval mode a CPU kernel would repack them for good."""
    modes = {module: module.training for module in linears.values()}
    for module in modes:
        module.training = True
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
