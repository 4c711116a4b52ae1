"""Gradient checkpointing: a layer stores only its input, and the backward pass runs its forward pass again.

    activations in memory:   L layers * c tokens * hidden   ->   L * tokens * hidden + one layer's        c about 30

(Chen et al. 2016). By then the contexts of the adapter batch and the packed batch have ended, so both are restored.
transformers' own switch works in training mode only, where dropout is on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from rlzoo.model.multi_lora import AdapterSwitch
from rlzoo.model.packing import active_batch, packed_attention


class Checkpoints:
    """Gradient checkpoints at the layers of a decoder.

    Attributes:
        enabled: whether layers are recomputed; False at first.
        layers: the layers that transformers declares for checkpointing.
    """

    def __init__(self, decoder: nn.Module, switch: AdapterSwitch) -> None:
        self.enabled = False
        self._switch = switch
        self.layers = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in self.layers:
            layer.forward = self._wrapped(layer.forward)

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not (self.enabled and torch.is_grad_enabled()):
                return forward(*args, **kwargs)
            return checkpoint(
                forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=self._contexts, **kwargs
            )

        return wrapped

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the forward pass and of its repetition."""
        return nullcontext(), self._entered_again(self._switch.active, active_batch())

    @contextmanager
    def _entered_again(self, adapters: Any, batch: Any) -> Iterator[None]:
        outer = self._switch.active
        self._switch.active = adapters
        try:
            with packed_attention(batch):
                yield
        finally:
            self._switch.active = outer
