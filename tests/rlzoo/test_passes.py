"""How rows are cut into passes."""

from __future__ import annotations

import pytest
import torch

from rlzoo.engine import Tokens
from rlzoo.passes import OVERHEAD, passes, saved_by_sharing


def rows(lengths: list[int], prompt: int = 2) -> Tokens:
    """One row per length, all with prompts of one length."""
    mask_NT = torch.arange(max(lengths, default=1)) < torch.tensor(lengths, dtype=torch.long)[:, None]
    return Tokens([[1] * prompt for _ in lengths], mask_NT.long(), mask_NT)


@pytest.mark.parametrize("budget", [1, 7, 30, 10**6])
def test_every_row_is_in_one_pass_and_the_budget_holds(budget: int) -> None:
    requests = [rows([3, 9, 1, 4, 4]), rows([7]), rows([2, 8, 2, 8, 2, 8, 2, 8])]
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for chunk in passes(requests, budget):
        width = 2 + max(int(requests[k].mask_NT[index].sum(1).max()) for k, index in chunk.items())
        ranks = max(len(index) for index in chunk.values())
        assert ranks == 1 or sum(map(len, chunk.values())) * width <= budget + width * len(requests)
        for k, index in chunk.items():
            seen[k] += index.tolist()
    assert [sorted(found) for found in seen.values()] == [list(range(5)), [0], list(range(8))]


def test_short_rows_and_long_rows_go_apart_where_that_saves_more_than_a_pass_costs() -> None:
    """Two runs of 40 rows, 20 of 2 tokens and 20 of 100 after a prompt of 10: together 80 rows of 110, 8,800 tokens;
    apart 40 of 12 and 40 of 110, 4,880. With 4 rows of each, apart would save 8 * 98 / 2 = 392 tokens only."""
    many = [rows([100, 2] * 20, prompt=10), rows([2, 100] * 20, prompt=10)]
    short, long = passes(many, 10**6)
    assert all(many[k].mask_NT[index].sum(1).unique().tolist() == [2] for k, index in short.items())
    assert all(many[k].mask_NT[index].sum(1).unique().tolist() == [100] for k, index in long.items())
    assert 392 < OVERHEAD < 3920
    assert len(list(passes([rows([100, 2] * 2, prompt=10)] * 2, 10**6))) == 1


def test_a_long_row_does_not_come_before_its_rank() -> None:
    """Of 3 ranks the two rows of the second request have the ranks 0, 1 and 2: the long one is in the second pass."""
    requests = [rows([1, 1, 600]), rows([1, 600])]
    assert [{k: index.tolist() for k, index in chunk.items()} for chunk in passes(requests, 10**6)] == [
        {0: [0, 1], 1: [0]},
        {0: [2], 1: [1]},
    ]


@pytest.mark.parametrize("budget", [40, 100, 400])
def test_the_budget_holds_for_requests_of_unequal_numbers_of_rows(budget: int) -> None:
    """But for the rounding of a pass's rows, less than one of each request."""
    lengths = [[3 * i % 17 + 1 for i in range(count)] for count in (5, 16, 7, 11)]
    requests = [rows(some) for some in lengths]
    chunks = list(passes(requests, budget))
    assert sum(len(index) for chunk in chunks for index in chunk.values()) == 5 + 16 + 7 + 11
    for chunk in chunks:
        width = 2 + max(int(requests[k].mask_NT[index].sum(1).max()) for k, index in chunk.items())
        assert (sum(map(len, chunk.values())) - len(requests)) * width <= budget


def test_equal_rows_stay_in_order() -> None:
    (chunk,) = passes([rows([3, 3, 3])], 10**6)
    assert chunk[0].tolist() == [0, 1, 2]


def test_no_row_is_no_pass() -> None:
    assert list(passes([rows([]), rows([])], 10)) == []
    assert [list(chunk) for chunk in passes([rows([]), rows([4])], 10)] == [[1]]


def test_prompts_are_shared_within_an_adapter_only() -> None:
    """Prompts of 5 and 3 tokens, by object: two rows of adapter 0 share the first, one of adapter 1 has it alone."""
    one, other = [1] * 5, [1] * 3
    mask_NT = torch.ones(4, 2, dtype=torch.bool)
    tokens = Tokens([one, one, other, one], mask_NT.long(), mask_NT)
    assert saved_by_sharing(tokens, [0, 0, 0, 1]) == 5
    assert saved_by_sharing(tokens, [0, 0, 0, 0]) == 10
