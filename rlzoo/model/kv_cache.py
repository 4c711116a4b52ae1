"""A key-value cache for decoding that does not copy itself for every token.

transformers' cache joins the old keys and the new one, [B, heads, t, d] and [B, heads, 1, d], into a new tensor at each
token. Here there is room for some tokens more, into which they are written; the copy is made once the room is used up.
Attention is given all of it, and the mask says, as for a cache of fixed size, that the room is not there yet: whole
tensors are read faster than parts. The keys and values are the same. Layers of other kinds, sliding windows say, are
left as they are. Written in place, so not for training.

What is copied goes to a spare piece of memory, and the piece it leaves is the next one's spare: a cache of n tensors
takes n + 1 pieces, and one more for each other width that they have. Asked for again and again, ever larger ones would
leave holes that none of them fits into.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 8
"""Positions added at once. More would be fewer copies, but more that attention reads in vain."""
RESERVED = 128
"""Positions that memory is asked for at once, if there may be as many; on a CPU, none is there before it is used."""


class Store:
    """A tensor `x` [B, heads, room, d] at the front of memory that has place for more."""

    def __init__(self, memory: Tensor, shape: tuple[int, ...]) -> None:
        self.memory = memory
        self.x = memory[: math.prod(shape)].view(shape)


class Spare:
    """The piece of memory that is not in use, for tensors of each kind and number of heads.

    Args:
        rows, positions: the most that a tensor will have from now on.
    """

    def __init__(self, rows: int, positions: int) -> None:
        self.rows, self.positions = rows, positions
        self._memory: dict[tuple[object, ...], Tensor] = {}

    def take(self, rows: int, room: int, like: Tensor) -> Store:
        """Return a store [rows, heads, room, d], of the heads [.., heads, .., d] of another tensor, not filled."""
        _, heads, _, width = like.shape
        shape = (rows, heads, room, width)
        memory = self._memory.pop(_kind(like), None)
        if memory is None or memory.numel() < math.prod(shape):
            positions = min(-(-room // RESERVED) * RESERVED, self.positions)
            memory = like.new_empty(max(self.rows * heads * positions * width, math.prod(shape)))
        return Store(memory, shape)

    def leave(self, store: Store) -> None:
        """The store is no longer used."""
        self._memory[_kind(store.x)] = store.memory


def _kind(x: Tensor) -> tuple[object, ...]:
    _, heads, _, width = x.shape
    return heads, width, x.dtype, x.device


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, `room` positions of which the first `seen` are there; the others are zero."""

    def __init__(self, spare: Spare) -> None:
        super().__init__()
        self.spare = spare
        self.stores: list[Store] = []
        self.seen = self.room = 0

    def _room_for(self, more: int) -> int:
        """The room that there will be when so many positions have been added; after a prompt there is none."""
        end = self.seen + more
        return self.room if end <= self.room else max(end, min(end + ROOM * (self.seen > 0), self.spare.positions))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new positions [B, heads, s, d] and return keys and values [B, heads, room, d]."""
        new = (key_states, value_states)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        room, end = self._room_for(key_states.shape[-2]), self.seen + key_states.shape[-2]
        if room > self.room:
            old, self.stores = self.stores, []
            for place, x in enumerate(new):
                store = self.spare.take(len(x), room, x)
                store.x[..., end:, :] = 0
                if old:
                    store.x[..., : self.seen, :] = old[place].x[..., : self.seen, :]
                    self.spare.leave(old[place])
                self.stores.append(store)
        for store, x in zip(self.stores, new, strict=True):
            store.x[..., self.seen : end, :] = x
        self.seen, self.room = end, room
        self.keys, self.values = (store.x for store in self.stores)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions that are there."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what attention will be given when so many positions have been added."""
        return self._room_for(query_length), 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the rows of an index; there will not be more of them."""
        self.spare.rows = len(beam_idx)
        for place, old in enumerate(self.stores):
            store = self.stores[place] = self.spare.take(len(beam_idx), self.room, old.x)
            torch.index_select(old.x, 0, beam_idx, out=store.x)
            self.spare.leave(old)
        self.keys, self.values = (store.x for store in self.stores)


def with_room(cache: Cache, rows: int, positions: int) -> Cache:
    """Let the growing layers of an empty cache keep room for what comes: so many rows and positions at most."""
    spare = Spare(rows, positions)
    cache.layers = [RoomyLayer(spare) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
