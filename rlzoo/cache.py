"""A key-value cache for decoding that does not copy itself for every token.

transformers' cache joins the old keys and the new one, [B, heads, t, d] and [B, heads, 1, d], into a new tensor at each
token. Here there is room for some tokens more, into which they are written; the copy is made once the room is used up.
The keys and values are the same. Layers of other kinds, sliding windows say, are left as they are. Written in place, so
not for training.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 4
"""Positions added at once. More would be fewer copies, but attention reads faster what lies close together."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer: the first positions of two larger tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._stores: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new positions [B, heads, s, d] and return all keys and values so far, as views."""
        new = (key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._stores:
            self.lazy_initialization(key_states, value_states)
            self._stores = [x.new_empty(0) for x in new]
        if start == 0 or end > self._stores[0].shape[-2]:
            grown = [x.new_empty((*x.shape[:-2], end + ROOM, x.shape[-1])) for x in new]
            if start:
                for store, old in zip(grown, (self.keys, self.values), strict=True):
                    store[..., :start, :] = old
            self._stores = grown
        for store, x in zip(self._stores, new, strict=True):
            store[..., start:end, :] = x
        return self._show(end)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the rows of an index."""
        end = self.get_seq_length()
        self._stores = [store.index_select(0, beam_idx) for store in self._stores]
        self._show(end)

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (store[..., :end, :] for store in self._stores)
        return self.keys, self.values


def with_room(cache: Cache) -> Cache:
    """Let the growing layers of an empty cache keep room for what comes."""
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
