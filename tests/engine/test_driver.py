"""Coroutines from ordinary code: ended with everything that belongs to them, in a notebook too."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from rlzoo.engine.batcher import Batcher
from rlzoo.engine.driver import drive, together
from rlzoo.engine.protocol import PolicyRef, SampleRequest
from rlzoo.training.client import Client


class Killed(BaseException):
    """Nothing may catch it."""


async def endless(ended: list[str], name: str) -> None:
    try:
        while True:
            await asyncio.sleep(0.001)
    finally:
        await asyncio.sleep(0)  # clean-up may wait, too
        ended.append(name)


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0.01)
    raise error


@pytest.mark.parametrize("error", [ValueError("x"), Killed(), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["job", "turn"])
def test_an_error_ends_all_jobs_and_leaves_none(error: BaseException, where: str) -> None:
    ended: list[str] = []
    turns = iter([None, None, error if where == "turn" else None])

    def turn() -> None:
        if (raised := next(turns, None)) is not None:
            raise raised

    jobs: dict[str, Any] = {name: endless(ended, name) for name in "ab"}
    if where == "job":
        jobs["bad"] = fails(error)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(type(error)):
            drive(together(jobs, turn))
    assert sorted(ended) == ["a", "b"]


def test_results_come_by_name_in_order() -> None:
    async def after(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert drive(together({"slow": after(0.02), "fast": after(0.0)})) == {"slow": 0.02, "fast": 0.0}


def test_within_a_running_loop_it_has_a_thread_of_its_own() -> None:
    """As in a notebook: the caller waits, and errors are its own."""

    async def where() -> int:
        return threading.get_ident()

    async def notebook() -> None:
        assert drive(where()) != threading.get_ident()
        with pytest.raises(ValueError, match="x"):
            drive(fails(ValueError("x")))

    asyncio.run(notebook())
    assert drive(where()) == threading.get_ident()


def batches(patience: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Batcher, list[list[str]]]:
    made: list[list[str]] = []
    monkeypatch.setattr("rlzoo.engine.batcher.PATIENCE", patience)

    def compute(kind: str, requests: list[Any]) -> list[Any]:
        made.append(sorted(map(str, requests)))
        if "bad" in requests:
            raise ValueError("bad")
        return [f"{request}!" for request in requests]

    return Batcher(compute), made


def test_a_batch_is_held_for_steady_runs_but_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    batcher, made = batches(0.05, monkeypatch)

    async def asks(run: str, wait: float) -> str:
        await asyncio.sleep(wait)
        return await batcher.ask("score", run, run)

    async def run(wait: float) -> list[str]:
        for name in "ab":
            batcher.hold_for(name)
        answers = await asyncio.gather(asks("a", 0), asks("b", wait))
        for name in "ab":
            batcher.forget(name)
        return answers

    assert drive(run(0.02)) == ["a!", "b!"] and made == [["a", "b"]]
    made.clear()
    start = time.monotonic()
    assert drive(run(0.3)) == ["a!", "b!"] and made == [["a"], ["b"]]
    assert time.monotonic() - start < 5


def test_a_request_that_fails_in_a_batch_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    batcher, made = batches(0.05, monkeypatch)

    async def run() -> list[Any]:
        asked = (batcher.ask("sample", name, name) for name in ("a", "bad", "b"))
        return await asyncio.gather(*asked, return_exceptions=True)

    a, bad, b = drive(run())
    assert (a, b) == ("a!", "b!") and isinstance(bad, ValueError)
    assert made == [["a", "b", "bad"], ["a"], ["bad"], ["b"]]


def test_samples_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs meet at the most expensive work."""
    batcher, made = batches(0.05, monkeypatch)

    async def run() -> None:
        kinds = ("sample", "step", "learn", "score")
        await asyncio.gather(*(batcher.ask(kind, kind, kind) for kind in kinds))

    drive(run())
    assert made == [["score"], ["learn"], ["step"], ["sample"]]


def test_runs_meet_when_all_others_wait_or_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow run's work is done before, however long it takes, and a run that has gone is not waited for."""

    async def talk() -> None:
        batcher, made = batches(0.01, monkeypatch)
        for run in ("fast", "slow", "gone"):
            batcher.hold_for(run)
        met: list[str] = []

        async def meet(run: str) -> None:
            await batcher.ask("meet", run, None)
            met.append(run)

        fast = asyncio.ensure_future(meet("fast"))
        await asyncio.sleep(0.05)  # longer than any patience
        await batcher.ask("learn", "slow", "work")
        assert not met and made == [["work"]]
        slow = asyncio.ensure_future(meet("slow"))
        await asyncio.sleep(0.05)
        assert not met
        batcher.forget("gone")
        await asyncio.gather(fast, slow)
        assert met == ["fast", "slow"] and made == [["work"]]

    drive(talk())


def test_a_request_that_is_cancelled_before_it_is_made_leaves_no_coroutine() -> None:
    """Ctrl-C between asking and the first turn: `coroutine 'LocalEngine.sample' was never awaited` came of it."""
    engine: Any = SimpleNamespace(sample=endless)
    request = SampleRequest(PolicyRef("run", 0), (), 1, max_new_tokens=1, seed=0, step=0, prompt_keys=())

    async def stopped() -> None:
        waiting = asyncio.ensure_future(Client(engine, "run", PolicyRef("run", 0), engine).sample(request, request))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await waiting

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(asyncio.CancelledError):
            drive(stopped())
        gc.collect()
    assert not [str(warning.message) for warning in said if "never awaited" in str(warning.message)]
