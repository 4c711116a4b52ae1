"""Rows by free memory, and halves after it ran out: the same results."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlzoo.engine import sampler
from rlzoo.engine.local import LocalEngine
from rlzoo.engine.memory import affordable_rows, affordable_tokens, cache_bytes, halving, prefill_bytes
from rlzoo.engine.micro_batches import halves
from rlzoo.engine.protocol import SampleRequest, StepSettings
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from tests.backbones import *  # noqa: F403  these tests take their backbones from there, not the runs'
from tests.engine.clients import hold, on_local
from tests.engine.test_conformance import learn
from tests.models import random_adapter
from tests.sampling import named, sample


def test_rows_are_what_free_memory_takes(fp32: Backbone) -> None:
    """2 layers, 2 key heads of 16, keys and values in float32: 512 bytes a position. At 100 positions and 97 tokens of
    vocabulary (12 bytes each) a row takes 51,200 + 1,164 bytes; 0.6 of 1 MiB holds 12 of them."""
    assert cache_bytes(fp32) == 2 * 2 * 2 * 16 * 4
    row = 100 * 512 + 12 * fp32.vocab_size
    assert affordable_rows(fp32, 100, 1 << 20) == int(0.6 * (1 << 20) / row) == 12
    assert affordable_rows(fp32, 100, 10) == 1 and affordable_rows(fp32, 100, None) > 10**9


def test_prompts_prefilled_at_once_are_what_free_memory_takes(fp32: Backbone) -> None:
    """An MLP of 128 takes 16 * 128 bytes a prompt token beside its 512 in the cache: 2,560. A prompt of 1,000 tokens
    outweighs a row's 1,010 cached positions (518,308 bytes); where 8 rows share one it takes an eighth per row."""
    inner = fp32.model.config.intermediate_size
    assert prefill_bytes(fp32) == 16 * inner + 512
    free, of_prompt = 1 << 26, 1000 * (16 * inner + 512)
    decoding = 1010 * 512 + 12 * fp32.vocab_size
    assert of_prompt > decoding > of_prompt / 8
    assert affordable_rows(fp32, 1010, free, 1000, 1) == int(0.6 * free / of_prompt)
    assert affordable_rows(fp32, 1010, free, 1000, 8) == affordable_rows(fp32, 1010, free)


def test_tokens_of_a_training_pass_are_what_free_memory_takes(fp32: Backbone) -> None:
    """Two layers in float32 keep 110 bytes per unit of width and token each; checkpoints keep the two inputs, and one
    layer while it runs again. Two graphs at once halve what fits."""
    width, free = fp32.model.config.hidden_size, 1 << 20
    assert affordable_tokens(fp32, free, False) == int(0.6 * free / (2 * 110 * width))
    assert affordable_tokens(fp32, free, True) == int(0.6 * free / ((110 + 2 * 4) * width))
    assert affordable_tokens(fp32, free, False, graphs=2) == affordable_tokens(fp32, free, False) // 2
    assert affordable_tokens(fp32, 1, False) == 1 and affordable_tokens(fp32, None, False) > 10**9


def test_passes_are_cut_to_free_memory_and_learn_the_same(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six rows with 2 prompts have 28 tokens in all; memory for 12 makes three passes of them, or more."""
    original, rows = LocalEngine._learn_pass, []

    def counted(engine: LocalEngine, requests: Any, chunk: Any) -> Any:
        rows.append(sum(len(some) for some in chunk.values()))
        return original(engine, requests, chunk)

    async def job(engine: LocalEngine) -> float:
        await hold(engine, "run", random_adapter(fp32, 1))
        await engine.forward_backward(learn("run"))
        return (await engine.optim_step("run", StepSettings(lr=1e-3))).gradient_norm

    monkeypatch.setattr(LocalEngine, "_learn_pass", counted)
    whole = on_local(fp32, job)
    assert rows == [6]
    memory = int(12 * 2 * 110 * fp32.model.config.hidden_size / 0.6) + 1
    monkeypatch.setattr("rlzoo.engine.local.free_bytes", lambda device: memory)
    assert on_local(fp32, job) == pytest.approx(whole, rel=1e-5)
    assert len(rows) >= 4 and sum(rows[1:]) == 6


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
