"""Responses in one line of tokens, with the places written out."""

from __future__ import annotations

import torch

from rlzoo.model.packing import Line

PAD = 99


def made() -> Line:
    """Adapter 0: prompt p = [1, 2] with the responses [5, 6, 7] and [8]. Adapter 1: p again, with [9, 9]."""
    prompt = [1, 2]
    response_BT = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 9, 0]])
    mask_BT = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    return Line.of([prompt] * 3, torch.tensor([0, 0, 1]), response_BT, mask_BT, PAD)


def test_each_adapter_has_its_prompt_once_and_as_much_of_the_line() -> None:
    """Adapter 0: 2 of prompt, 2 and 0 of responses whose last token is not fed. Adapter 1: 2 and 1, 1 of padding."""
    line = made()
    assert line.token_N.tolist() == [1, 2, 5, 6, 1, 2, 9, PAD]
    assert line.position_N.tolist() == [0, 1, 2, 3, 0, 1, 2, 0]
    assert line.slot_N.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert line.real == 7


def test_attention_gathers_sequences_and_reads_each_token_once() -> None:
    line = made()
    assert line.sequence_BS.tolist() == [[0, 1, 2, 3], [0, 1, 0, 0], [4, 5, 6, 4]]
    # Prompts are read in the first row of their group, the padding in a row of its own run.
    assert line.reader_N.tolist() == [0, 1, 2, 3, 8, 9, 10, 8]
    real = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    assert torch.equal(line.sequence_BS.flatten()[line.reader_N[real]], real)


def test_a_response_is_predicted_from_the_token_before() -> None:
    """The first token of each from the prompt's last."""
    assert made().before_R.tolist() == [1, 2, 3, 1, 5, 6]


def test_prompts_are_shared_by_object_and_rows_may_be_mixed_or_empty() -> None:
    one, other = [1, 2], [1, 2]
    mask_BT = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 0]]).bool()
    response_BT = torch.tensor([[3, 4], [5, 6], [7, 8], [0, 0]])
    line = Line.of([one, other, one, other], torch.zeros(4, dtype=torch.int64), response_BT, mask_BT, PAD)
    assert line.token_N.tolist() == [1, 2, 1, 2, 3, 5, 7]
    assert line.sequence_BS.tolist() == [[0, 1, 4], [2, 3, 5], [0, 1, 6], [2, 3, 2]]
    assert line.before_R.tolist() == [1, 4, 3, 5, 1, 6]
