"""How the rows of several runs are cut into forward passes: within a budget of tokens, with every prompt once per pass.

    tokens of a pass = runs * longest of their parts,      a run's part: its prompts, each once, and its responses

A run's rows stay together, group by group, as long as the budget allows; larger runs are cut into parts. In a pass each
part is padded to the largest (see `rlzoo.model.packing`), so parts of about the same size share one. There are as few
passes as the budget allows. Then their sizes are evened out, if that costs little, because the largest pass decides how
much memory is needed. The pass of a row changes no result: a loss is a plain sum over rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rlzoo.engine.tokens import Tokens

WIDEST = 2
"""Attention works on padded rows, which may take this many times the budget."""

OVERHEAD = 256
"""Fixed cost of a pass, in tokens: launching small operations takes about 12 ms, forward and backward together."""

EVEN = 1.05
"""Largest factor on the total size that even passes may cost: beside a larger part, a part is padded."""

Piece = TypeVar("Piece")
Pass = dict[int, Tensor]
"""Request -> the rows that it has in a pass."""


@dataclass
class Part:
    """Some rows of one request: their tokens with every prompt once, and the longest of them, prompt included."""

    request: int
    rows: list[int]
    tokens: int
    longest: int


def passes(requests: Sequence[Tokens], budget: int, shares: bool = True) -> Iterator[Pass]:
    """Cut the rows of several requests into passes of at most `budget` tokens, prompts included.

    Rows of one request share the prompts that they name; without `shares`, every row is padded and has its own copy. A
    row longer than the budget is a pass of its own. A request may be empty (a step may keep no prompt); if all are,
    there is no pass.
    """
    widest = budget * WIDEST if shares else budget
    parts = [part for k, tokens in enumerate(requests) for part in _parts(k, tokens, budget, widest, shares)]
    parts.sort(key=lambda part: -part.tokens)

    def share(limit: float) -> list[list[Part]]:
        """Put each part to the first others that it fits with. Only `open_` ones have room for any more."""
        together: list[list[Part]] = []
        open_: list[list[Part]] = []
        for part in parts:
            for some in open_:
                rows = sum(len(one.rows) for one in some)
                longest = max(one.longest for one in [*some, part])
                apart = all(one.request != part.request for one in some)
                if apart and (rows + len(part.rows)) * longest <= widest:
                    some.append(part)
                    break
            else:
                some = [part]
                together.append(some)
                open_.append(some)
            if (len(some) + 1) * some[0].tokens > limit:  # parts come by size: no later one needs less
                open_.remove(some)
        return together

    largest = parts[0].tokens if parts else 0
    together = _evenly(share, budget, lambda some: len(some) * some[0].tokens, largest)
    for some in together:
        yield {part.request: torch.tensor(part.rows) for part in sorted(some, key=lambda part: part.request)}


def passes_together(requests: Sequence[Tokens], budget: int, shares: bool = True) -> Iterator[Pass]:
    """The same for rows that all use the same weights: rows of different requests share passes."""
    ends = torch.tensor([len(tokens) for tokens in requests]).cumsum(0)
    for chunk in passes([Tokens.cat(requests)], budget, shares):
        (rows,) = chunk.values()
        owner = torch.bucketize(rows, ends, right=True)
        first = ends - torch.tensor([len(tokens) for tokens in requests])
        yield {k: rows[owner == k] - first[k] for k in owner.unique().tolist()}


def halves(chunk: Pass) -> list[Pass]:
    """Divide a pass in two, by requests, or by the rows of a single one; a single row is returned as it is."""
    if len(chunk) > 1:
        requests = list(chunk.items())
        return [dict(requests[: len(chunk) // 2]), dict(requests[len(chunk) // 2 :])]
    ((request, rows),) = chunk.items()
    return [{request: half} for half in rows.tensor_split(2)] if len(rows) > 1 else [chunk]


def _parts(request: int, tokens: Tokens, budget: int, widest: int, shares: bool) -> list[Part]:
    """One request's rows, group by group, in as few parts of about the same size as the budget allows."""
    prompt_N, length_N = tokens.prompt_length_N.tolist(), tokens.length_N.tolist()
    group_N = tokens.group_N.tolist()
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(group_N):
        groups.setdefault(group, []).append(row)
    order = [row for rows in groups.values() for row in rows]

    def cut(limit: float) -> list[Part]:
        parts: list[Part] = []
        last = None
        for row in order:
            if parts:
                part = parts[-1]
                longest = max(part.longest, length_N[row])
                more = length_N[row] - (prompt_N[row] if shares and group_N[row] == last else 0)
                if part.tokens + more <= limit and (len(part.rows) + 1) * longest <= widest:
                    part.rows.append(row)
                    part.tokens, part.longest, last = part.tokens + more, longest, group_N[row]
                    continue
            parts.append(Part(request, [row], length_N[row], length_N[row]))
            last = group_N[row]
        return parts

    return _evenly(cut, budget, lambda part: part.tokens, max(length_N, default=0))


def _evenly(cut: Callable[[float], list[Piece]], limit: float, size: Callable[[Piece], int], step: int) -> list[Piece]:
    """Return what `cut` makes within a limit, or within a lower one, if it takes no more pieces and hardly more in all:
    within their mean size, or a step above it."""
    fewest = cut(limit)
    total = sum(map(size, fewest))
    mean = total / max(len(fewest), 1)
    tries = (cut(min(lower, limit)) for lower in (mean, mean + step))
    good = (even for even in tries if len(even) <= len(fewest) and sum(map(size, even)) <= EVEN * total)
    return next(good, fewest)
