"""How the rows of several runs are cut into forward passes: within a budget of tokens, and with little padding.

    minimize  sum over passes of  rows * width + OVERHEAD,     width the longest prompt and response in the pass

Each run's rows are sorted by the length of their responses, and a pass takes the same stretch of every run's order, so
that it has about as many rows of each run, all about as long. Where the stretches end is found by dynamic programming.
Which pass a row is in changes no result: a loss is a plain sum over rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from rlzoo.engine import Tokens

OVERHEAD = 512
"""What a pass costs beside its tokens, in tokens: calls of small operations, about 30 ms forward and backward."""
CUTS = 64
"""Places that are considered for an end of a pass."""

Pass = dict[int, Tensor]
"""Request -> the rows that it has in a pass."""


def passes(requests: Sequence[Tokens], budget: int) -> Iterator[Pass]:
    """Cut the rows of several requests into passes of at most `budget` tokens, padding and prompts included.

    A row longer than the budget is a pass of its own (one row of each run). A request may be empty (a step may keep no
    prompt); if all are, there is no pass.
    """
    longest = max(len(tokens) for tokens in requests)
    if longest == 0:
        return
    lengths = [tokens.mask_NT.sum(dim=1).cpu() for tokens in requests]
    orders = [length_N.argsort(stable=True) for length_N in lengths]
    # Stretches are of ranks 0 .. longest - 1; a request with fewer rows has each of them at several ranks.
    places = [torch.arange(longest) * len(order) // longest for order in orders]
    sorted_ = [
        length_N[order][place] for length_N, order, place in zip(lengths, orders, places, strict=True) if len(order)
    ]
    prompt = max(len(prompt) for tokens in requests for prompt in tokens.prompts)
    rows = sum(len(tokens) for tokens in requests) / longest
    width = torch.stack(sorted_).amax(dim=0).numpy() + prompt
    for first, last in _stretches(rows, width, budget):
        # A row that has several ranks is in the pass of the first of them.
        bounds = [tuple((rank - 1) * len(order) // longest + 1 for rank in (first, last)) for order in orders]
        chosen = {k: order[slice(*bound)] for k, (order, bound) in enumerate(zip(orders, bounds, strict=True))}
        yield {k: index for k, index in chosen.items() if len(index)}


def _stretches(rows: float, width: np.ndarray, budget: int) -> list[tuple[int, int]]:
    """Best stretches (first, last) of ranks, where every rank has `rows` rows of up to `width[rank]` tokens."""
    cuts = np.unique(np.linspace(0, len(width), min(CUTS, len(width)) + 1).astype(int))
    if rows * width[-1] * np.diff(cuts).max() > budget:  # too coarse for the budget
        cuts = np.arange(len(width) + 1)
    best = np.zeros(len(cuts))
    start = np.zeros(len(cuts), dtype=int)
    for j in range(1, len(cuts)):
        tokens = (cuts[j] - cuts[:j]) * rows * width[cuts[j] - 1]
        cost = np.where(tokens <= budget, best[:j] + tokens + OVERHEAD, np.inf)
        start[j] = cost.argmin() if np.isfinite(cost).any() else j - 1
        best[j] = best[start[j]] + tokens[start[j]] + OVERHEAD
    ends = [len(cuts) - 1]
    while ends[-1]:
        ends.append(start[ends[-1]])
    return [(int(cuts[start[j]]), int(cuts[j])) for j in reversed(ends[:-1])]


def saved_by_sharing(tokens: Tokens, slots: Sequence[int]) -> int:
    """Prompt tokens that need not be computed when rows of one adapter with one prompt (one list object) share it."""
    different = {(slot, id(prompt)): len(prompt) for slot, prompt in zip(slots, tokens.prompts, strict=True)}
    return sum(map(len, tokens.prompts)) - sum(different.values())
