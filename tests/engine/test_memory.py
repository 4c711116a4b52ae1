"""Rows by free memory, and halves after it ran out: the same results."""

from __future__ import annotations

import pytest
import torch

from rlzoo.engine import sampler
from rlzoo.engine.memory import affordable_rows, cache_bytes, halving
from rlzoo.engine.micro_batches import halves
from rlzoo.engine.protocol import SampleRequest
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from tests.backbones import *  # noqa: F403  these tests take their backbones from there, not the runs'
from tests.models import random_adapter
from tests.sampling import named, sample


def test_rows_are_what_free_memory_takes(fp32: Backbone) -> None:
    """2 layers, 2 key heads of 16, keys and values in float32: 512 bytes a position. At 100 positions and 97 tokens of
    vocabulary (12 bytes each) a row takes 51,200 + 1,164 bytes; 0.6 of 1 MiB holds 12 of them."""
    assert cache_bytes(fp32) == 2 * 2 * 2 * 16 * 4
    row = 100 * 512 + 12 * fp32.vocab_size
    assert affordable_rows(fp32, 100, 1 << 20) == int(0.6 * (1 << 20) / row) == 12
    assert affordable_rows(fp32, 100, 10) == 1 and affordable_rows(fp32, 100, None) > 10**9


def test_work_is_halved_until_it_fits_and_every_piece_is_done_once() -> None:
    def do(numbers: list[int]) -> int:
        if len(numbers) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sum(numbers)

    def in_two(numbers: list[int]) -> list[list[int]]:
        half = len(numbers) // 2
        return [numbers[:half], numbers[half:]] if half else [numbers]

    done = list(halving([[1, 2, 3, 4, 5], [6]], do, in_two))
    assert done == [([1, 2], 3), ([3], 3), ([4, 5], 9), ([6], 6)]

    def never(numbers: list[int]) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(UserError, match=r"a single row does not fit .* engine.gradient_checkpointing"):
        list(halving([[1, 2]], never, in_two))


def test_halves_of_a_pass_have_all_its_rows() -> None:
    three = {0: torch.arange(3), 2: torch.tensor([5]), 3: torch.tensor([1, 4])}
    first, second = halves(three)
    assert list(first) == [0] and list(second) == [2, 3]
    left, right = halves({4: torch.arange(3)})
    assert left[4].tolist() == [0, 1] and right[4].tolist() == [2]
    assert len(halves({4: torch.arange(1)})) == 1


def test_samples_are_the_same_in_halves(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [fp32.encode(text) for text in ("3+4=", "sort 52413", "x", "12-7=")]
    request = SampleRequest(named(random_adapter(fp32, 1)), prompts, 3, 8, seed=0, step=1, prompt_keys=[0, 1, 2, 3])
    (whole,) = sample(fp32, [request])
    decode, rows = sampler._decode, []

    def tight(backbone: Backbone, stack: object, batch: object) -> object:
        rows.append(int(batch.group_size.sum()))
        if rows[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(backbone, stack, batch)

    monkeypatch.setattr(sampler, "_decode", tight)
    (ours,) = sample(fp32, [request])
    assert rows == [12, 6, 3, 3, 6, 3, 3]
    assert torch.equal(ours.response_NT, whole.response_NT)
    torch.testing.assert_close(ours.logp_NT, whole.logp_NT, rtol=0, atol=2e-5)
