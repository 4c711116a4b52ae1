"""Work divided among threads: evenly, always in the same way, and with the same results."""

from __future__ import annotations

import threading

import pytest
import torch

from rlzoo import sampler
from rlzoo.backbone import Backbone
from rlzoo.sampler import SampleRequest, sample
from rlzoo.workers import Workers, cores, divide
from tests.rlzoo.models import random_adapter


def test_the_largest_go_first_to_whoever_has_least() -> None:
    """9 to the first, 5 and 4 to the second, 3 (a tie of 9 and 9) to the first; each list in the given order."""
    assert divide("abcd", [3, 9, 4, 5], 2) == [["a", "b"], ["c", "d"]]
    assert divide("ab", [1, 1], 5) == [["a"], ["b"]]
    assert divide("", [], 3) == [[]]


def test_each_item_is_worked_on_once_and_at_the_same_time_as_others() -> None:
    meeting = threading.Barrier(2, timeout=60)  # passes only if both workers are at it

    def work(items: list[int]) -> tuple[list[int], int]:
        meeting.wait()
        return items, torch.get_num_threads()

    shares = Workers(2).each(work, [1, 2, 3], [1, 1, 2])
    assert shares == [([3], 1), ([1, 2], 1)]


def test_one_worker_is_the_callers_thread() -> None:
    assert Workers(1).each(lambda items: (items, threading.current_thread()), [1, 2], [1, 1]) == [
        ([1, 2], threading.current_thread())
    ]
    assert 1 <= cores() <= torch.get_num_threads()


def test_an_error_in_a_worker_is_the_callers() -> None:
    def fail(items: list[int]) -> None:
        raise ValueError(f"{items}")

    with pytest.raises(ValueError, match="1"):
        Workers(2).each(fail, [1], [1])


def test_samples_do_not_depend_on_the_number_of_workers(nf4: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "ROWS_OF_A_WORKER", 2)
    prompts = [nf4.encode(text) for text in ("3+4=", "sort 52413", "x")]
    requests = [
        SampleRequest(theta, prompts, group, 8, seed=0, step=0, prompt_keys=range(3))
        for theta, group in ((random_adapter(nf4, 1), 4), (None, 3), (random_adapter(nf4, 2), 5))
    ]
    for alone, divided in zip(sample(nf4, requests), sample(nf4, requests, workers=Workers(3)), strict=True):
        assert torch.equal(alone.response_NT, divided.response_NT)
        torch.testing.assert_close(alone.logp_NT, divided.logp_NT, rtol=0, atol=1e-5)
