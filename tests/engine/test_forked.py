"""A fleet divided among processes trains the same runs, with the same records, and leaves no process behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import RunConfig
from rlzoo.engine import forked
from rlzoo.engine.forked import count_processes, divide_work, share_of
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train_fleet
from rlzoo.training.run import Run
from tests.training.same import assert_same_run

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or torch.accelerator.is_available(), reason="fleets are divided on Linux without a GPU"
)


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    with pytest.raises(ChildProcessError):  # not even one that nobody has waited for
        os.waitpid(-1, os.WNOHANG)


def test_a_divided_fleet_trains_the_same_runs(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """Four runs, two processes: the second has one with a critic of its own and one that fails."""

    def runs(root: str, processes: int) -> dict[str, tuple[RunConfig, Path]]:
        engine = {"processes": processes}
        configs = {
            "grpo": make_config("grpo", engine=engine),
            "critic": make_config("ppo", engine=engine, train={"critic": "adapter"}),
            "dapo": make_config("dapo", 1, engine=engine),
            "bad": make_config("reinforce", engine=engine, optimizer={"lr": 1e38}),
        }
        return {name: (config, tmp_path / root / name) for name, config in configs.items()}

    heard: dict[str, list[tuple[str, str, int]]] = {"whole": [], "divided": []}
    summaries: dict[str, dict[str, dict[str, Any]]] = {}
    for root, count in (("whole", 1), ("divided", 2)):
        summaries[root] = train_fleet(
            runs(root, count),
            backbone=backbone,
            on_record=lambda name, r, root=root: heard[root].append((name, r["kind"], r["step"])),
        )
    whole, divided = summaries["whole"], summaries["divided"]
    assert list(divided) == list(whole)
    assert divided["bad"]["state"] == "failed" and divided["bad"]["failure"] == whole["bad"]["failure"]
    assert all(divided[name]["state"] == "done" for name in whole if name != "bad")
    for name in whole:
        if name != "bad":  # its adapter is not finite
            assert_same_run(tmp_path / "whole" / name, tmp_path / "divided" / name, backbone)
        assert [h for h in heard["divided"] if h[0] == name] == [h for h in heard["whole"] if h[0] == name]
    again = train_fleet(runs("divided", 2), backbone=backbone, resume=True)
    assert again == divided


def test_three_runs_on_two_processes_and_two_runs_on_nine(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run i is trained in process i mod P, whose parts of the budgets are a P-th; whoever trains a run finishes it."""
    finish = Run.finish

    def finish_here(run: Run, *args: Any, **kwargs: Any) -> dict[str, Any]:
        (run.folder.path / "trained_by").write_text(f"{os.getpid()} {run.step}")
        return finish(run, *args, **kwargs)

    monkeypatch.setattr(Run, "finish", finish_here)
    trainers: dict[int, list[str]] = {}
    for count, names in ((2, "abc"), (9, "ab")):
        runs = {
            name: (make_config("gspo", seed, engine={"processes": count}), tmp_path / str(count) / name)
            for seed, name in enumerate(names)
        }
        assert all(summary["state"] == "done" for summary in train_fleet(runs, backbone=backbone).values())
        trainers[count] = [(folder / "trained_by").read_text() for _, folder in runs.values()]
    here = f"{os.getpid()} 3"
    assert trainers[2][0] == trainers[2][2] == trainers[9][0] == here
    assert all(text != here and text.endswith(" 3") for text in (trainers[2][1], trainers[9][1]))
    for name in "ab":
        assert_same_run(tmp_path / "2" / name, tmp_path / "9" / name, backbone)


class Killed(BaseException):
    """Stands for Ctrl-C: nothing may catch it."""


@pytest.mark.parametrize("whose", ["grpo", "gspo"])
def test_a_divided_fleet_that_is_interrupted_goes_on(
    whose: str, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """At a record of the first process, or one that came from the second."""

    def runs(root: str, **changes: Any) -> dict[str, tuple[RunConfig, Path]]:
        return {name: (make_config(name, **changes), tmp_path / root / name) for name in ("grpo", "gspo")}

    def kill(name: str, record: dict[str, Any]) -> None:
        if name == whose and record["step"] == 2:
            raise Killed

    engine = {"processes": 2}
    with pytest.raises(Killed):
        train_fleet(runs("killed", engine=engine), backbone=backbone, on_record=kill)
    assert multiprocessing.active_children() == []
    train_fleet(runs("killed", engine=engine), backbone=backbone, resume=True)
    train_fleet(runs("whole"), backbone=backbone)
    for name in ("grpo", "gspo"):
        assert_same_run(tmp_path / "whole" / name, tmp_path / "killed" / name, backbone)


def test_a_reward_that_raises_in_another_process_ends_its_run_alone(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """A reward that fails outside the calling process: the run there has failed, the run here is done."""
    changes = {"engine": {"processes": 2}, "task": {"reward": "tests.training.rewards:fails_elsewhere"}}
    runs = {name: (make_config(name, **changes), tmp_path / name) for name in ("grpo", "gspo")}
    summaries = train_fleet(runs, backbone=backbone)
    assert summaries["grpo"]["state"] == "done"
    assert summaries["gspo"]["state"] == "failed" and "raised ZeroDivisionError" in summaries["gspo"]["failure"]
    assert "in fails_elsewhere" in (tmp_path / "gspo" / "failure.txt").read_text()


def divided(child: Callable[..., Any], parent: Callable[..., Any], names: Sequence[str] = "ab", **options: Any) -> Any:
    """Have `b` done by a forked process and `a` here."""

    def work(names: Sequence[str], tell: Any, now_and_then: Callable[[], None]) -> dict[str, Any]:
        return {name: (parent if name == "a" else child)(tell, now_and_then) for name in names}

    return divide_work(names, len(names), work, options.get("on_record"))


def waits(tell: Any, now_and_then: Callable[[], None]) -> None:
    """Work until something else ends it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        now_and_then()
        time.sleep(0.002)


def test_a_user_error_stays_one_and_what_cannot_be_sent_is_told() -> None:
    class Local(Exception):
        """Of no module, so it cannot be pickled."""

    def fails(error: BaseException) -> Callable[..., None]:
        def fail(*_: Any) -> None:
            raise error

        return fail

    with pytest.raises(UserError, match="too long"):
        divided(fails(UserError("too long")), waits)
    with pytest.raises(RuntimeError, match="Local: what happened"):
        divided(fails(Local("what happened")), waits)
    with pytest.raises(KeyError, match="mine"):
        divided(waits, fails(KeyError("mine")))


def test_a_process_that_is_killed_is_told_with_its_runs_and_what_to_do() -> None:
    def dies(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"trained b ended without a word \(SIGKILL\).*engine\.processes = 1.*--resume"):
        divided(dies, waits)
    with pytest.raises(UserError, match=r"exit code 7"):
        divided(lambda *_: os._exit(7), lambda *_: None)  # the caller waits for it, its own share done


def test_a_process_whose_first_one_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `kill -9` of the first process: its parent is another one."""
    mine = os.getpid()
    monkeypatch.setattr(os, "getppid", lambda seen=[]: seen.append(0) or mine + len(seen))
    with pytest.raises(SystemExit):
        divided(waits, waits)


def test_ctrl_c_is_for_the_first_process_alone() -> None:
    """The whole group of a terminal gets it; the others go on until the first stops them."""

    def interrupted(tell: Any, now_and_then: Any) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "went on"

    assert divided(interrupted, lambda *_: None)["b"] == "went on"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(KeyboardInterrupt):
        divided(waits, lambda *_: signal.raise_signal(signal.SIGINT))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before and signal.SIGINT not in before


def test_what_others_say_is_heard_here_in_order_between_pieces_of_work() -> None:
    heard: list[tuple[str, int, int]] = []

    def child(tell: Any, now_and_then: Any) -> int:
        for i in range(5):
            tell("b", {"i": i})
        return os.getpid()

    def parent(tell: Any, now_and_then: Callable[[], None]) -> int:
        deadline = time.monotonic() + 60
        while len(heard) < 5 and time.monotonic() < deadline:
            now_and_then()
        return len(heard)

    made = divided(child, parent, on_record=lambda name, r: heard.append((name, r["i"], threading.get_ident())))
    assert made["a"] == 5 and made["b"] != os.getpid()
    assert heard == [("b", i, threading.get_ident()) for i in range(5)]


def test_what_others_print_is_printed_here(capsys: pytest.CaptureFixture[str]) -> None:
    def child(*_: Any) -> None:
        print("from afar")
        print("take care", file=sys.stderr)

    divided(child, lambda *_: None)
    captured = capsys.readouterr()
    assert captured.out == "from afar\n" and captured.err == "take care\n"


def test_products_have_one_thread_while_there_are_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert divided(*[lambda *_: torch.get_num_threads()] * 2) == {"a": 1, "b": 1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_process_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_Children", None)
    assert divided(waits, lambda *_: 1, names="a") == {"a": 1}


def test_how_many_processes(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """One per core and run, and as many as have 256 tokens each of those that passes share, 1,536: six."""
    monkeypatch.setattr(forked, "cores", lambda: 8)
    automatic = EngineSettings(micro_batch_tokens=1536)
    assert [count_processes(automatic, CPU, runs) for runs in (0, 1, 3, 99)] == [1, 1, 3, 6]
    assert count_processes(EngineSettings(micro_batch_tokens=100), CPU, 4) == 1
    assert count_processes(EngineSettings(processes=20), CPU, 99) == 20
    assert count_processes(EngineSettings(processes=20), CPU, 2) == 2
    assert count_processes(automatic, torch.device("cuda"), 99) == 1
    with pytest.raises(UserError, match=r"engine\.processes = 2: runs on cuda share one process"):
        count_processes(EngineSettings(processes=2), torch.device("cuda"), 99)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert count_processes(automatic, CPU, 99) == 1
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES"):
        count_processes(EngineSettings(processes=2), CPU, 99)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert count_processes(EngineSettings(processes=1), CPU, 99) == count_processes(automatic, CPU, 99) == 1
    with pytest.raises(UserError, match="Linux only"):
        count_processes(EngineSettings(processes=2), CPU, 99)


def test_a_share_of_the_settings() -> None:
    whole = EngineSettings(micro_batch_tokens=3072, sample_rows=768)
    assert share_of(whole, 1) is whole
    share = share_of(whole, 2)
    assert (share.micro_batch_tokens, share.sample_rows, share.processes) == (1536, 384, 1)
    few = share_of(EngineSettings(micro_batch_tokens=1, sample_rows=1), 2)
    assert (few.micro_batch_tokens, few.sample_rows) == (1, 1)
