"""A key-value cache for decoding in large batches: room is reserved ahead, so a step writes one column per row.

transformers' own `DynamicLayer` copies the whole cache to add a column, which here costs as much as the model itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """A `DynamicLayer` with room for `capacity` positions, and more when they are exceeded."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new positions [B, H, S, D]; return views of all keys and values [B, H, past + S, D]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._store()
        past = self.keys.shape[2]
        end = past + key_states.shape[2]
        if end > self.capacity:
            self.capacity = 2 * end
            self._store()
        self._keys[:, :, past:end], self._values[:, :, past:end] = key_states, value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`, in that order; a row may occur several times."""
        self._store(indices)

    def _store(self, indices: Tensor | None = None) -> None:
        """Move the rows into new storage with room to spare."""
        rows = self.keys.shape[0] if indices is None else len(indices)
        for name in ("keys", "values"):
            filled = getattr(self, name)
            storage = filled.new_empty((rows, filled.shape[1], self.capacity, filled.shape[3]))
            view = storage[:, :, : filled.shape[2]]
            if indices is None:
                view.copy_(filled)
            else:
                torch.index_select(filled, 0, indices, out=view)
            setattr(self, f"_{name}", storage)
            setattr(self, name, view)


def decoding_cache(config: PretrainedConfig, capacity: int) -> DynamicCache:
    """Return an empty cache for the model; layers that are not plain attention stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
