"""The division of rows into micro-batches."""

from __future__ import annotations

import pytest
import torch

from rlzoo.engine.micro_batches import WIDEST, Pass, passes, passes_together
from rlzoo.engine.tokens import Tokens


def rows(lengths: list[int], prompt: int = 2, group: int = 1) -> Tokens:
    """One row per length; each `group` of them answer one prompt, all of one length."""
    mask_NT = torch.arange(max(lengths, default=1)) < torch.tensor(lengths, dtype=torch.long)[:, None]
    group_N = torch.arange(len(lengths)) // group
    return Tokens([[1] * prompt for _ in lengths], group_N, mask_NT.long(), mask_NT, mask_NT)


def size(tokens: Tokens, index: torch.Tensor) -> int:
    """Tokens of some rows, every prompt once."""
    prompts = sum(len(tokens.prompts[p]) for p in tokens.group_N[index].unique().tolist())
    return prompts + int(tokens.exists_NT[index].sum())


def as_lists(chunks: list[Pass]) -> list[dict[int, list[int]]]:
    return [{k: index.tolist() for k, index in chunk.items()} for chunk in chunks]


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("budget", [1, 7, 30, 100, 10**6])
def test_every_row_is_in_one_pass_and_the_budget_holds(budget: int, shares: bool) -> None:
    requests = [rows([3, 9, 1, 4, 4], group=5), rows([7]), rows([2, 8, 2, 8, 2, 8, 2, 8], group=4)]
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for chunk in passes(requests, budget, shares):
        longest = max(2 + int(requests[k].exists_NT[index].sum(1).max()) for k, index in chunk.items())
        number = sum(map(len, chunk.values()))
        if number > 1:
            assert number * longest <= budget * (WIDEST if shares else 1)
            if shares:
                assert len(chunk) * max(size(requests[k], index) for k, index in chunk.items()) <= budget
        for k, index in chunk.items():
            seen[k] += index.tolist()
    assert [sorted(found) for found in seen.values()] == [list(range(5)), [0], list(range(8))]


def test_runs_of_about_the_same_size_share_a_pass() -> None:
    """Of 2 + 10, 2 + 40, 2 + 38 and 2 + 9 tokens, the large ones take 2 * 42 of 100, the small ones 2 * 12; all
    together would take 4 * 42."""
    requests = [rows([10]), rows([40]), rows([38]), rows([9])]
    assert as_lists(list(passes(requests, 100))) == [{1: [0], 2: [0]}, {0: [0], 3: [0]}]


def test_passes_are_as_few_as_the_budget_allows_and_then_even() -> None:
    """Of ten runs of 2 + 26 tokens a budget of 200 takes seven: two passes of five, not seven and three. Of nine, five
    and four; of fourteen, seven and seven; of fifteen five, five and five."""
    for runs, counts in [(10, [5, 5]), (9, [5, 4]), (14, [7, 7]), (15, [5, 5, 5])]:
        assert [len(chunk) for chunk in passes([rows([26]) for _ in range(runs)], 200)] == counts


def test_passes_are_not_made_even_at_any_price() -> None:
    """Three runs of 50 tokens and one of 10 in 150: 3 * 50 and 10 are 160 tokens, 2 * 50 and 2 * 50 would be 200."""
    requests = [rows([48]), rows([48]), rows([48]), rows([8])]
    assert as_lists(list(passes(requests, 150))) == [{0: [0], 1: [0], 2: [0]}, {3: [0]}]


def test_a_run_too_large_is_cut_evenly_and_its_groups_stay_together() -> None:
    """Four groups of two rows, 2 + 5 + 5 tokens each: 48 in a budget of 40 are two and two groups, not three and one.
    Rows of a group need not come together."""
    tokens = rows([5] * 8, group=2)
    assert as_lists(list(passes([tokens], 40))) == [{0: [0, 1, 2, 3]}, {0: [4, 5, 6, 7]}]
    mixed = tokens.rows(torch.tensor([0, 2, 4, 6, 1, 3, 5, 7]))
    assert as_lists(list(passes([mixed], 40))) == [{0: [0, 4, 1, 5]}, {0: [2, 6, 3, 7]}]


def test_one_long_row_among_short_ones_does_not_widen_attention_without_end() -> None:
    """Nine rows of 2 + 1 tokens and one of 2 + 48 are 77 tokens, but padded 500: more than twice a budget of 100."""
    chunks = as_lists(list(passes([rows([48] + [1] * 9)], 100)))
    assert len(chunks) > 1 and sorted(i for chunk in chunks for i in chunk[0]) == list(range(10))
    assert len(chunks[0][0] if 0 in chunks[0][0] else chunks[1][0]) * 50 <= 200


def test_no_row_is_no_pass() -> None:
    assert list(passes([rows([]), rows([])], 10)) == []
    assert [list(chunk) for chunk in passes([rows([]), rows([4])], 10)] == [[1]]


def test_rows_of_the_same_weights_fill_passes_together() -> None:
    """Three requests of three rows, 2 + 8 tokens each, in 50: apart each would be a pass of 30, as two would be 60 by
    the larger; together five rows and four."""
    requests = [rows([8, 8, 8]) for _ in range(3)]
    assert as_lists(list(passes_together(requests, 50))) == [{0: [0, 1, 2], 1: [0, 1]}, {1: [2], 2: [0, 1, 2]}]
    assert [list(chunk) for chunk in passes_together([rows([]), rows([4])], 10)] == [[1]]
    assert list(passes_together([rows([]), rows([])], 10)) == []


def test_groups_stay_together_and_requests_apart() -> None:
    """Rows of the second request come in another order, and its prompts stay its own: 2 + 2 * 4 tokens for rows 0 and
    1, 2 and 3 of the first request and 1 and 2 of the second, 2 + 4 for row 0 of the second."""
    one = rows([4] * 4, group=2)
    requests = [one, one.rows(torch.tensor([3, 1, 0]))]
    assert as_lists(list(passes_together(requests, 30))) == [{0: [0, 1, 2, 3]}, {1: [0, 1, 2]}]
