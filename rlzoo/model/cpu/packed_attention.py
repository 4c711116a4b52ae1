"""Attention of a line of tokens (see `rlzoo.model.packing`) in two blocks of batched products that know
what a line repeats.

    prompts:    o = softmax(s q k^T + mask) v       queries and keys of each prompt, once for all of its responses
    responses:  o = softmax(s q k^T + mask) v       queries of each response; keys of its prompt and its own

An index brings queries, keys and values of all heads from the line into the rows of these blocks, and its transpose,
sums over bags of rows, brings their gradients back. Queries and keys are turned (rotary embedding) by the
numbers of their columns: only differences of positions matter, and so all rows have the same angles. Float32, on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from rlzoo.model.cpu import attention, matmul
from rlzoo.model.cpu.fused_ops import turn
from rlzoo.model.packing import Line, ranges

ALIGNED = 16
"""Keys are made a multiple of this: softmax takes as many at once, and what is left over takes as long again."""

Kept = tuple[Tensor, ...]
"""Rows of queries, keys and values, and of each block which query looks at what."""
Angles = tuple[Tensor, Tensor]
"""Cosines and `signed` sines by which each column is turned: [columns, d]."""


@dataclass(frozen=True)
class Block:
    """R rows of T queries, which see some of S keys.

    Attributes:
        query_RT, key_RS: their places in the line.
        query_is_real, key_is_real: bool; the others are padding, and stand for some token of the same run.
        first: column of the first query; keys are counted from 0.
        sees: bool, whether a query sees a key: [R or 1, T, S]. Each sees one at least.
    """

    query_RT: Tensor
    query_is_real: Tensor
    key_RS: Tensor
    key_is_real: Tensor
    first: int
    sees: Tensor

    @classmethod
    def of_prompts(cls, line: Line) -> Block:
        """Every prompt in a row, padded on the right."""
        width = _aligned(int(line.prompts.length.max()))
        place, real = line.prompts.columns(width, line.prompts.start)
        return cls(place, real, place, real, 0, torch.ones((1, width, width), dtype=torch.bool).tril())

    @classmethod
    def of_responses(cls, line: Line) -> Block:
        """Every response in a row, after its prompt; all of them begin in one column."""
        start_B, prompt_B = line.prompts.start[line.prompt_B], line.prompts.length[line.prompt_B]
        queries = int(line.responses.length.max())
        width = columns(line)
        first, column_S = width - queries, torch.arange(width)
        own, own_real = line.responses.columns(queries, start_B)
        in_prompt = column_S[:first] - (first - prompt_B[:, None])
        key_RS = torch.cat([start_B[:, None] + in_prompt.clamp(min=0), own], dim=1)
        alike = prompt_B[:1] if bool((prompt_B == prompt_B[0]).all()) else prompt_B
        sees = (column_S <= column_S[first:, None]) & (column_S >= first - alike[:, None, None])
        return cls(own, own_real, key_RS, torch.cat([in_prompt >= 0, own_real], dim=1), first, sees)


class Seats:
    """Which rows the numbers of a line sit in: of several blocks one after the other, each [R, heads, W] rows of d.

    Args:
        places: per block, places [R, W] in the line, and which of them are real; padding is not brought back.
    """

    def __init__(self, places: list[tuple[Tensor, Tensor]], heads: int, tokens: int) -> None:
        self.places, self.heads, self.tokens = places, heads, tokens
        self.sizes = [place.numel() * heads for place, _ in places]
        head_H1 = torch.arange(heads)[:, None]
        self.source = torch.cat([(place[:, None] * heads + head_H1).flatten() for place, _ in places])
        """Row of the line, [N * heads, d], that each row takes."""

    @cached_property
    def taken(self) -> tuple[Tensor, Tensor]:
        """Places [E] of the real tokens, in rising order, and the rows [E, heads] that they sit in."""
        numbers = torch.arange(sum(self.sizes)).split(self.sizes)
        rows = [
            number.view(len(place), self.heads, -1).transpose(1, 2)[real]
            for number, (place, real) in zip(numbers, self.places, strict=True)
        ]
        place_E, order = torch.cat([place[real] for place, real in self.places]).sort(stable=True)
        return place_E, torch.cat(rows)[order]

    @cached_property
    def bags(self) -> tuple[Tensor, Tensor]:
        """The rows that each row of the line sits in, one after the other, and where those of each begin."""
        place_E, row_EH = self.taken
        count_N = torch.bincount(place_E, minlength=self.tokens)
        start_N = count_N.cumsum(0) - count_N
        count_L = count_N.repeat_interleave(self.heads)
        head = torch.arange(self.heads).repeat(self.tokens).repeat_interleave(count_L)
        return row_EH[ranges(start_N.repeat_interleave(self.heads), count_L), head], F.pad(count_L.cumsum(0), (1, 0))

    def gather(self, x_NO: Tensor) -> Tensor:
        """Return the rows [rows, d] of numbers [N, heads * d] of the line."""
        return x_NO.view(self.tokens * self.heads, -1).index_select(0, self.source)

    def bring_back(self, rows: Tensor) -> Tensor:
        """The transpose of `gather`: return the sums [N, heads * d] of the rows that each sits in."""
        index, starts = self.bags
        summed = F.embedding_bag(index, rows, starts, mode="sum", include_last_offset=True)
        return summed.view(self.tokens, -1)

    def by_block(self, rows: Tensor, heads: int | None = None) -> list[Tensor]:
        """Return the rows of each block as [R * heads, W, d], or of fewer heads, so many of its own in one."""
        parts = zip(rows.split_with_sizes(self.sizes), self.places, strict=True)
        return [part.view(len(place) * (heads or self.heads), -1, rows.shape[1]) for part, (place, _) in parts]


class LineAttention:
    """Where everything lies, worked out once per line and used by all layers."""

    def __init__(self, line: Line, heads: int, key_heads: int) -> None:
        self.key_heads = key_heads
        self.blocks = [Block.of_prompts(line)]
        if line.responses.length.any():
            self.blocks.append(Block.of_responses(line))
        self.columns = columns(line)
        """For which there must be angles."""
        self.masks = [_mask(block.sees, heads, key_heads) for block in self.blocks]
        tokens = len(line.token_N)
        self.queries = Seats([(block.query_RT, block.query_is_real) for block in self.blocks], heads, tokens)
        self.keys = Seats([(block.key_RS, block.key_is_real) for block in self.blocks], key_heads, tokens)
        place_N, row_NH = self.queries.taken
        # What comes out is read where a token is the query; padding reads what the first token of its run does.
        read_NH = torch.empty((tokens, heads), dtype=torch.int64).index_copy_(0, place_N, row_NH)
        self.read = torch.where(line.is_padding[:, None], read_NH[line.first_N], read_NH).flatten()

    @cached_property
    def reader(self) -> Tensor:
        """Row of the line that reads each row of what comes out; where nobody does, the row after its last."""
        place_N, row_NH = self.queries.taken
        heads = row_NH.shape[1]
        reader = torch.full((sum(self.queries.sizes),), self.queries.tokens * heads)
        reader[row_NH.flatten()] = (place_N[:, None] * heads + torch.arange(heads)).flatten()
        return reader

    def forward(self, query: Tensor, key: Tensor, value: Tensor, angles: Angles, scaling: float) -> tuple[Tensor, Kept]:
        """Return the attention [N, heads * d] of queries, keys and values [N, .. * d], and what `backward` asks for."""
        rows = self.queries.gather(query), self.keys.gather(key), self.keys.gather(value)
        self._turn(*rows[:2], *angles)
        out = torch.empty_like(rows[0])
        given = zip(*self._stacked(*rows), self.masks, self.queries.by_block(out, self.key_heads), strict=True)
        p = [attention.attend(q, k, v, mask, scaling, out=o)[1] for q, k, v, mask, o in given]
        return self._in_line(out), (*rows, *p)

    def again(self, kept: Kept) -> Tensor:
        """Return the attention once more, of what `forward` kept: one product, where keeping it takes as much as x."""
        (query, _, value), p = kept[:3], kept[3:]
        out = torch.empty_like(query)
        given = zip(p, self.keys.by_block(value), self.queries.by_block(out, self.key_heads), strict=True)
        for p_KRS, v, o in given:
            matmul.bmm(p_KRS, v, out=o)
        return self._in_line(out)

    def backward(self, g_NO: Tensor, kept: Kept, angles: Angles, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of queries, keys and values, given that of what `forward` gave."""
        rows, p = kept[:3], kept[3:]
        g_rows = g_NO.reshape(-1, rows[0].shape[1])
        g = torch.cat([g_rows, g_rows.new_zeros((1, g_rows.shape[1]))]).index_select(0, self.reader)
        d = [torch.empty_like(x) for x in rows]
        into = zip(*self._stacked(*d), strict=True)
        given = zip(self.queries.by_block(g, self.key_heads), *self._stacked(*rows), p, into, strict=True)
        for o, q, k, v, p_KRS, out in given:
            attention.attend_backward(o, q, k, v, p_KRS, scaling, out=out)
        cos, signed_sin = angles
        self._turn(*d[:2], cos, -signed_sin)
        dquery, dkey, dvalue = d
        return self.queries.bring_back(dquery), self.keys.bring_back(dkey), self.keys.bring_back(dvalue)

    def _in_line(self, rows: Tensor) -> Tensor:
        """What each token of the line reads [N, heads * d] of rows that came out."""
        return rows.index_select(0, self.read).view(self.queries.tokens, -1)

    def _turn(self, query: Tensor, key: Tensor, cos: Tensor, signed_sin: Tensor) -> None:
        """Turn the rows of queries and keys by the angles of their columns."""
        for block, q, k in zip(self.blocks, self.queries.by_block(query), self.keys.by_block(key), strict=True):
            end = block.key_RS.shape[1]
            turn(q, cos[block.first : end], signed_sin[block.first : end])
            turn(k, cos[:end], signed_sin[:end])

    def _stacked(self, query: Tensor, key: Tensor, value: Tensor) -> list[list[Tensor]]:
        """Their rows, block by block, as `attention` has them: [R * key heads, .., d]."""
        return [self.queries.by_block(query, self.key_heads), self.keys.by_block(key), self.keys.by_block(value)]


def columns(line: Line) -> int:
    """Keys that the responses' block has: the longest prompt and the longest response, whosever they are, aligned."""
    return _aligned(int(line.prompts.length.max()) + int(line.responses.length.max()))


def _mask(sees: Tensor, heads: int, key_heads: int) -> Tensor:
    """0 where a query sees a key and -inf elsewhere, for all queries of a head of keys: [R * key heads or 1, .., S]."""
    rows, queries, keys = sees.shape
    mask = torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)[:, None, None]
    each = key_heads if rows > 1 else 1
    return mask.expand(rows, each, heads // key_heads, queries, keys).reshape(rows * each, -1, keys)


def _aligned(keys: int) -> int:
    return -(-keys // ALIGNED) * ALIGNED
