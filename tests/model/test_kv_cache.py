"""The cache with room holds what transformers' own holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from rlzoo.model import kv_cache
from rlzoo.model.kv_cache import ROOM, RoomyLayer, Spare


def states(rows: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """Keys and values, of which the values have another width."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((rows, 2, tokens, 4), generator=generator), torch.randn(
        (rows, 2, tokens, 3), generator=generator
    )


@pytest.mark.parametrize("reserved", [1, 5, 128])
def test_what_is_there_is_the_same_and_the_room_is_announced_and_empty(
    reserved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt of 3 tokens takes 3 positions; the next one makes room for ROOM more, and again when that is used up,
    up to the last of them. However much memory is asked for at once."""
    monkeypatch.setattr(kv_cache, "RESERVED", reserved)
    spare = Spare(rows=4, positions=3 + 2 * ROOM)
    ours, theirs, rooms = [RoomyLayer(spare), RoomyLayer(spare)], DynamicCache(), []
    rows = 3
    for step, more in enumerate((3, *[1] * (2 * ROOM))):
        for index, layer in enumerate(ours):
            announced, offset = layer.get_mask_sizes(more)
            new = states(rows, more, 100 * index + step)
            got, kept = layer.update(*new), theirs.update(*new, index)
            seen = 3 + step
            assert (got[0].shape[2], offset, layer.get_seq_length()) == (announced, 0, seen)
            for one, other in zip(got, kept, strict=True):
                assert torch.equal(one[:, :, :seen], other) and not one[:, :, seen:].any()
        rooms.append(announced)
        for after, index in ((2, [2, 0, 1, 1]), (5, [3, 0])):  # some rows twice, some not at all, in another order
            if step == after:
                rows = len(index)
                for layer in ours:
                    layer.reorder_cache(torch.tensor(index))
                theirs.reorder_cache(torch.tensor(index))
    first = 4 + ROOM
    assert rooms == [3, *[first] * (ROOM + 1), *[3 + 2 * ROOM] * (ROOM - 1)]


def test_memory_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of three layers, and one spare of either kind, whose widths differ: eight pieces, each for four
    rows, two heads and 43 positions."""
    made = []
    monkeypatch.setattr(kv_cache, "RESERVED", 128)
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda x, size: made.append(size) or new_empty(x, size))
    spare = Spare(rows=4, positions=43)
    layers = [RoomyLayer(spare) for _ in range(3)]
    for step, more in enumerate((3, *[1] * 40)):
        for layer in layers:
            layer.update(*states(2 if step == 0 else 4, more, step))
            if step == 0:
                layer.reorder_cache(torch.tensor([0, 0, 1, 1]))
    assert sorted(made) == [4 * 2 * 43 * 3] * 4 + [4 * 2 * 43 * 4] * 4


def test_memory_is_not_asked_for_rows_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """At first 8 rows by 4 positions, for keys and values and a spare of either; one row is left, which needs other
    memory after 32 positions, a row's."""
    made = []
    monkeypatch.setattr(kv_cache, "RESERVED", 4)
    new_empty = Tensor.new_empty
    monkeypatch.setattr(
        Tensor, "new_empty", lambda x, size: made.append(size // (2 * x.shape[3])) or new_empty(x, size)
    )
    layer = RoomyLayer(Spare(rows=8, positions=50))
    layer.update(*states(8, 3, 0))
    layer.reorder_cache(torch.tensor([5]))
    for step in range(40):
        layer.update(*states(1, 1, step))
    assert made[:4] == [8 * 4] * 2 + [4] * 2 and max(made[4:]) <= 50


def test_more_rows_and_positions_than_were_announced_are_no_harm() -> None:
    layer, theirs = RoomyLayer(Spare(rows=1, positions=2)), DynamicCache()
    for step in range(5):
        got, kept = layer.update(*states(3, 1, step)), theirs.update(*states(3, 1, step), 0)
        assert all(map(torch.equal, got, kept))
