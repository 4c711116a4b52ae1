"""A key-value cache for decoding that does not copy itself for every token.

transformers' cache joins the old keys and the new one, [B, heads, t, d] and [B, heads, 1, d], into a new tensor at each
token. Here there is room for some tokens more, into which they are written; the copy is made once the room is used up.
Attention is given all of it, and the mask says, as for a cache of fixed size, that the room is not there yet: whole
tensors are read faster than parts. The keys and values are the same. Layers of other kinds, sliding windows say, are
left as they are. Written in place, so not for training.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 8
"""Positions added at once. More would be fewer copies, but more that attention reads in vain."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, `room` positions of which the first `seen` are there; the others are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = self.room = 0

    def _room_for(self, more: int) -> int:
        """The room that there will be when so many positions have been added; after a prompt there is none."""
        end = self.seen + more
        return self.room if end <= self.room else end + ROOM * (self.seen > 0)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new positions [B, heads, s, d] and return keys and values [B, heads, room, d]."""
        new = (key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        room, end = self._room_for(key_states.shape[-2]), self.seen + key_states.shape[-2]
        if room > self.room:
            grown = [x.new_empty((*x.shape[:-2], room, x.shape[-1])) for x in new]
            for store, old in zip(grown, (self.keys, self.values), strict=True):
                store[..., end:, :] = 0
                if self.seen:
                    store[..., : self.seen, :] = old[..., : self.seen, :]
            self.keys, self.values = grown
        for store, x in zip((self.keys, self.values), new, strict=True):
            store[..., self.seen : end, :] = x
        self.seen, self.room = end, room
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions that are there."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what attention will be given when so many positions have been added."""
        return self._room_for(query_length), 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the rows of an index."""
        self.keys, self.values = (store.index_select(0, beam_idx) for store in (self.keys, self.values))


def with_room(cache: Cache) -> Cache:
    """Let the growing layers of an empty cache keep room for what comes."""
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
