"""The cache with room holds what transformers' own holds."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from rlzoo.cache import ROOM, RoomyLayer


def states(rows: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((rows, 2, tokens, 4), generator=generator), torch.randn(
        (rows, 2, tokens, 4), generator=generator
    )


def test_what_is_there_is_the_same_and_the_room_is_announced_and_empty() -> None:
    """A prompt of 3 tokens takes 3 positions; the next one makes room for ROOM more, and again when that is used up."""
    ours, theirs, rooms = RoomyLayer(), DynamicCache(), []
    for step, more in enumerate((3, *[1] * (2 * ROOM))):
        announced, offset = ours.get_mask_sizes(more)
        rows = 3 if step <= 5 else 2
        got, kept = ours.update(*states(rows, more, step)), theirs.update(*states(rows, more, step), 0)
        seen = 3 + step
        assert (got[0].shape[2], offset, ours.get_seq_length()) == (announced, 0, seen)
        for one, other in zip(got, kept, strict=True):
            assert torch.equal(one[:, :, :seen], other) and not one[:, :, seen:].any()
        rooms.append(announced)
        if step == 5:  # two of the rows go on, in another order
            ours.reorder_cache(torch.tensor([2, 0]))
            theirs.reorder_cache(torch.tensor([2, 0]))
    first = 4 + ROOM
    assert rooms == [3, *[first] * (ROOM + 1), *[first + 1 + ROOM] * (ROOM - 1)]
