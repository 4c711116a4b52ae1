"""Attention of a packed batch in two blocks of batched products, which compute each prompt once for its group.

    prompts:    o = softmax(s q k^T + mask) v       queries and keys of each prompt
    responses:  o = softmax(s q k^T + mask) v       queries of each response; keys of its prompt and its own

An index gathers queries, keys and values of all heads from the packed tokens into the rows of these blocks. Its
transpose sums the gradients of all rows that copy a token. Rotary angles belong to the columns of a block, not to
positions: only differences of positions matter, so all rows share them. For float32 on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from rlzoo.model.cpu import attention
from rlzoo.model.cpu.fused_ops import rotate
from rlzoo.model.packing import PackedBatch, ranges

ALIGNED = 16
"""The number of keys is rounded up to a multiple of this, which softmax processes at once."""

Saved = tuple[Tensor, ...]
"""Rows of queries, keys and values, then the attention weights of each block."""
Angles = tuple[Tensor, Tensor]
"""Cosines and `signed` sines of the rotary angle of each column: [columns, d]."""


@dataclass(frozen=True)
class Block:
    """R rows of T queries, each of which attends to some of S keys.

    Attributes:
        query_RT, key_RS: their indices into the packed tokens.
        query_is_real, key_is_real: bool; False is padding, filled with some token of the same run.
        first: column of the first query; the first key is column 0.
        sees: bool [R or 1, T, S], whether a query attends to a key; every query attends to at least one.
    """

    query_RT: Tensor
    query_is_real: Tensor
    key_RS: Tensor
    key_is_real: Tensor
    first: int
    sees: Tensor

    @classmethod
    def of_prompts(cls, batch: PackedBatch) -> Block:
        """One row per prompt, padded on the right."""
        width = _aligned(int(batch.prompts.length.max()))
        place, real = batch.prompts.columns(width, batch.prompts.start)
        return cls(place, real, place, real, 0, torch.ones((1, width, width), dtype=torch.bool).tril())

    @classmethod
    def of_responses(cls, batch: PackedBatch) -> Block:
        """One row per response, after its prompt. All responses begin in the same column."""
        start_B, prompt_B = batch.prompts.start[batch.prompt_B], batch.prompts.length[batch.prompt_B]
        queries = int(batch.responses.length.max())
        width = columns(batch)
        first, column_S = width - queries, torch.arange(width)
        own, own_real = batch.responses.columns(queries, start_B)
        in_prompt = column_S[:first] - (first - prompt_B[:, None])
        key_RS = torch.cat([start_B[:, None] + in_prompt.clamp(min=0), own], dim=1)
        alike = prompt_B[:1] if bool((prompt_B == prompt_B[0]).all()) else prompt_B
        sees = (column_S <= column_S[first:, None]) & (column_S >= first - alike[:, None, None])
        return cls(own, own_real, key_RS, torch.cat([in_prompt >= 0, own_real], dim=1), first, sees)


class GatherIndex:
    """Gathers a packed tensor [N, heads * d] into the rows of several blocks: [R, heads, W] rows of d each.

    Args:
        places: per block, indices [R, W] into the packed tokens, and the mask of real ones. `scatter_add` skips
            padding.
        heads: number of heads of the gathered tensor.
        tokens: N.
    """

    def __init__(self, places: list[tuple[Tensor, Tensor]], heads: int, tokens: int) -> None:
        self.places, self.heads, self.tokens = places, heads, tokens
        self.sizes = [place.numel() * heads for place, _ in places]
        head_H1 = torch.arange(heads)[:, None]
        self.source = torch.cat([(place[:, None] * heads + head_H1).flatten() for place, _ in places])
        """For each gathered row, the row that it copies of the packed tensor viewed as [N * heads, d]."""

    @cached_property
    def taken(self) -> tuple[Tensor, Tensor]:
        """Packed indices [E] of the real entries in ascending order, and the gathered rows [E, heads] of each."""
        numbers = torch.arange(sum(self.sizes)).split(self.sizes)
        rows = [
            number.view(len(place), self.heads, -1).transpose(1, 2)[real]
            for number, (place, real) in zip(numbers, self.places, strict=True)
        ]
        place_E, order = torch.cat([place[real] for place, real in self.places]).sort(stable=True)
        return place_E, torch.cat(rows)[order]

    @cached_property
    def bags(self) -> tuple[Tensor, Tensor]:
        """The gathered rows that copy each packed row, concatenated, and the offsets of each packed row's part."""
        place_E, row_EH = self.taken
        count_N = torch.bincount(place_E, minlength=self.tokens)
        start_N = count_N.cumsum(0) - count_N
        count_L = count_N.repeat_interleave(self.heads)
        head = torch.arange(self.heads).repeat(self.tokens).repeat_interleave(count_L)
        return row_EH[ranges(start_N.repeat_interleave(self.heads), count_L), head], F.pad(count_L.cumsum(0), (1, 0))

    def gather(self, x_NO: Tensor) -> Tensor:
        """Return the rows [rows, d] of a packed tensor [N, heads * d]."""
        return x_NO.view(self.tokens * self.heads, -1).index_select(0, self.source)

    def scatter_add(self, rows: Tensor) -> Tensor:
        """The transpose of `gather`: sum the rows that copy each packed token, [N, heads * d]."""
        index, starts = self.bags
        summed = F.embedding_bag(index, rows, starts, mode="sum", include_last_offset=True)
        return summed.view(self.tokens, -1)

    def by_block(self, rows: Tensor, heads: int | None = None) -> list[Tensor]:
        """Return the rows of each block as [R * heads, W, d]. With fewer `heads`, groups of heads are concatenated."""
        parts = zip(rows.split_with_sizes(self.sizes), self.places, strict=True)
        return [part.view(len(place) * (heads or self.heads), -1, rows.shape[1]) for part, (place, _) in parts]


class PackedAttention:
    """Indices and masks of a packed batch, computed once for all layers."""

    def __init__(self, batch: PackedBatch, heads: int, key_heads: int) -> None:
        self.key_heads = key_heads
        self.blocks = [Block.of_prompts(batch)]
        if batch.responses.length.any():
            self.blocks.append(Block.of_responses(batch))
        self.columns = columns(batch)
        """Columns that need rotary angles."""
        self.masks = [_mask(block.sees, heads, key_heads) for block in self.blocks]
        tokens = len(batch.token_N)
        self.queries = GatherIndex([(block.query_RT, block.query_is_real) for block in self.blocks], heads, tokens)
        self.keys = GatherIndex([(block.key_RS, block.key_is_real) for block in self.blocks], key_heads, tokens)
        place_N, row_NH = self.queries.taken
        # Each token reads the output row in which it is the query; padding reads that of the first token of its run.
        read_NH = torch.empty((tokens, heads), dtype=torch.int64).index_copy_(0, place_N, row_NH)
        self.source = torch.where(batch.is_padding[:, None], read_NH[batch.first_N], read_NH).flatten()

    @cached_property
    def reader(self) -> Tensor:
        """For each output row, the packed row that reads it; one past the end if none does."""
        place_N, row_NH = self.queries.taken
        heads = row_NH.shape[1]
        reader = torch.full((sum(self.queries.sizes),), self.queries.tokens * heads)
        reader[row_NH.flatten()] = (place_N[:, None] * heads + torch.arange(heads)).flatten()
        return reader

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, angles: Angles, scaling: float
    ) -> tuple[Tensor, Saved]:
        """Return the output [N, heads * d] for queries, keys and values [N, .. * d], and what `backward` needs."""
        rows = self.queries.gather(query), self.keys.gather(key), self.keys.gather(value)
        self._rotate(*rows[:2], *angles)
        out = torch.empty_like(rows[0])
        given = zip(*self._stacked(*rows), self.masks, self.queries.by_block(out, self.key_heads), strict=True)
        p = [attention.attend(q, k, v, mask, scaling, out=o)[1] for q, k, v, mask, o in given]
        return self._read(out), (*rows, *p)

    def again(self, saved: Saved) -> Tensor:
        """Recompute the output of `forward` from what it saved: one more product instead of storing the output."""
        (query, _, value), p = saved[:3], saved[3:]
        out = torch.empty_like(query)
        given = zip(p, self.keys.by_block(value), self.queries.by_block(out, self.key_heads), strict=True)
        for p_KRS, v, o in given:
            torch.bmm(p_KRS, v, out=o)
        return self._read(out)

    def backward(self, g_NO: Tensor, saved: Saved, angles: Angles, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of queries, keys and values, given the gradient of the output."""
        rows, p = saved[:3], saved[3:]
        g_rows = g_NO.reshape(-1, rows[0].shape[1])
        g = torch.cat([g_rows, g_rows.new_zeros((1, g_rows.shape[1]))]).index_select(0, self.reader)
        d = [torch.empty_like(x) for x in rows]
        into = zip(*self._stacked(*d), strict=True)
        given = zip(self.queries.by_block(g, self.key_heads), *self._stacked(*rows), p, into, strict=True)
        for o, q, k, v, p_KRS, out in given:
            attention.attend_backward(o, q, k, v, p_KRS, scaling, out=out)
        cos, signed_sin = angles
        self._rotate(*d[:2], cos, -signed_sin)
        dquery, dkey, dvalue = d
        return self.queries.scatter_add(dquery), self.keys.scatter_add(dkey), self.keys.scatter_add(dvalue)

    def _read(self, rows: Tensor) -> Tensor:
        """Return the output [N, heads * d] of each packed token from the output rows."""
        return rows.index_select(0, self.source).view(self.queries.tokens, -1)

    def _rotate(self, query: Tensor, key: Tensor, cos: Tensor, signed_sin: Tensor) -> None:
        """Rotate the rows of queries and keys by the angles of their columns, in place."""
        for block, q, k in zip(self.blocks, self.queries.by_block(query), self.keys.by_block(key), strict=True):
            end = block.key_RS.shape[1]
            rotate(q, cos[block.first : end], signed_sin[block.first : end])
            rotate(k, cos[:end], signed_sin[:end])

    def _stacked(self, query: Tensor, key: Tensor, value: Tensor) -> list[list[Tensor]]:
        """Return the rows per block in the shape that `attention` expects: [R * key heads, .., d]."""
        return [self.queries.by_block(query, self.key_heads), self.keys.by_block(key), self.keys.by_block(value)]


def columns(batch: PackedBatch) -> int:
    """Return the width of the block of responses: longest prompt plus longest response, rounded up to `ALIGNED`."""
    return _aligned(int(batch.prompts.length.max()) + int(batch.responses.length.max()))


def _mask(sees: Tensor, heads: int, key_heads: int) -> Tensor:
    """Return the additive mask, 0 or -inf, for the queries of each key head: [R * key heads or 1, .., S]."""
    rows, queries, keys = sees.shape
    mask = torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)[:, None, None]
    each = key_heads if rows > 1 else 1
    return mask.expand(rows, each, heads // key_heads, queries, keys).reshape(rows * each, -1, keys)


def _aligned(keys: int) -> int:
    return -(-keys // ALIGNED) * ALIGNED
