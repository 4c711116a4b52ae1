"""Work divided among threads: evenly, always in the same way, and with the same results."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

import pytest
import torch

from rlzoo import fleet, sampler, workers
from rlzoo.backbone import Backbone
from rlzoo.config import EngineSettings
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

    def work(items: Iterable[int]) -> tuple[list[int], int]:
        meeting.wait()
        return list(items), torch.get_num_threads()

    shares = Workers(2).each(work, [1, 2, 3], [1, 1, 2])
    assert shares == [([3], 1), ([1, 2], 1)]


def test_one_worker_is_the_callers_thread() -> None:
    assert Workers(1).each(lambda items: (items, threading.current_thread()), [1, 2], [1, 1]) == [
        ([1, 2], threading.current_thread())
    ]
    assert 1 <= cores() <= torch.get_num_threads()


def test_an_error_in_a_worker_is_the_callers() -> None:
    def fail(items: Iterable[int]) -> None:
        raise ValueError(f"{list(items)}")

    with pytest.raises(ValueError, match="1"):
        Workers(2).each(fail, [1], [1])


def test_when_one_worker_fails_the_others_end_before_the_error_goes_on() -> None:
    """One has 1 and fails at it while the other, which has 0 and 2, is at 0; 2 is never begun."""
    begun, seen = threading.Barrier(2, timeout=5), []

    def work(items: Iterable[int]) -> None:
        for item in items:
            seen.append(item)
            begun.wait()
            if item == 1:
                raise ValueError("no")
            time.sleep(0.05)  # the error gets to the caller in less

    with pytest.raises(ValueError, match="no"):
        Workers(2).each(work, [0, 1, 2], [2, 3, 1])
    assert sorted(seen) == [0, 1]


def test_ctrl_c_does_not_leave_workers_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, seen = threading.Barrier(3, timeout=5), []

    def work(items: Iterable[int]) -> None:
        for item in items:
            seen.append(item)
            begun.wait()
            time.sleep(0.05)

    def interrupted(*args: object, **kwargs: object) -> None:
        begun.wait()
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Workers(2).each(work, [0, 1, 2, 3], [1, 1, 1, 1])
    assert sorted(seen) == [0, 1]


@pytest.mark.parametrize(("most", "batches"), [(4, [2, 2, 2, 2, 2, 2]), (6, [3, 3, 3, 3]), (12, [12])])
def test_all_workers_together_decode_no_more_than_they_may(
    most: int, batches: list[int], nf4: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve rows, two workers: at 4 rows at once each may have 2, at 6 each 3; 12 are too few to be divided."""
    rows: list[int] = []
    decode = sampler._decode
    monkeypatch.setattr(
        sampler, "_decode", lambda b, s, prompts: rows.append(len(prompts.tokens)) or decode(b, s, prompts)
    )
    asked = SampleRequest(None, [nf4.encode("3+4=")] * 12, 1, 3, seed=0, step=0, prompt_keys=range(12))
    sample(nf4, [asked], most, Workers(2))
    assert rows == batches


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


def test_so_many_workers_that_a_pass_is_worth_its_calls(nf4: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes share 3,072 tokens, and one costs as much as 512: six at most, however many cores there are."""
    for found, expected in ((1, 1), (4, 4), (64, 6)):
        monkeypatch.setattr(fleet, "cores", lambda found=found: found)
        assert fleet.Fleet(nf4, EngineSettings(micro_batch_tokens=3072)).workers.count == expected
    assert fleet.Fleet(nf4, EngineSettings(micro_batch_tokens=100)).workers.count == 1
    assert fleet.Fleet(nf4, EngineSettings(workers=9)).workers.count == 9
