"""Packed rows of several runs, with the expected indices written out."""

from __future__ import annotations

import torch

from rlzoo.model.packing import PackedBatch

PAD = 99


def made() -> PackedBatch:
    """Adapter 0: prompt p = [1, 2] with the responses [5, 6, 7] and [8]. Adapter 1: p again, with [9, 9]."""
    prompt = [1, 2]
    response_BT = torch.tensor([[5, 6, 7], [8, 0, 0], [9, 9, 0]])
    mask_BT = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    group_B, slot_B = torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1])
    return PackedBatch.of([prompt], group_B, slot_B, response_BT, mask_BT, mask_BT, PAD)


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


def test_prompts_are_shared_by_index_and_rows_may_be_mixed_or_empty() -> None:
    prompt, group_B = [1, 2], torch.tensor([0, 1, 0, 1])
    mask_BT = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 0]]).bool()
    response_BT = torch.tensor([[3, 4], [5, 6], [7, 8], [0, 0]])
    line = PackedBatch.of([prompt, prompt], group_B, torch.zeros(4).long(), response_BT, mask_BT, mask_BT, PAD)
    assert line.token_N.tolist() == [1, 2, 1, 2, 3, 5, 7]
    assert line.sequence_BS.tolist() == [[0, 1, 4], [2, 3, 5], [0, 1, 6], [2, 3, 2]]
    assert line.before_R.tolist() == [1, 4, 3, 5, 1, 6]


def test_what_is_not_learned_is_fed_and_not_predicted() -> None:
    """Prompt [1, 2] with [5, 6, 7, 8], of which 5 and 7 are learned: 8 and the last learned token are not fed. The
    second row has nothing to learn and adds nothing."""
    token_BT, exists_BT = torch.tensor([[5, 6, 7, 8], [3, 4, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    learn_BT = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0]]).bool()
    line = PackedBatch.of([[1, 2]], torch.zeros(2).long(), torch.zeros(2).long(), token_BT, exists_BT, learn_BT, PAD)
    assert line.token_N.tolist() == [1, 2, 5, 6]
    assert line.before_R.tolist() == [1, 3]
