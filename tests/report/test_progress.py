"""The live view: what it says about runs, its estimate, and its two forms (table in a terminal, lines elsewhere)."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rlzoo.report.progress import Progress, RunProgress, clock_time, short_count


class Clock:
    """A clock that is set by hand, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def runs(seeds: int = 2, steps: int = 10) -> list[RunProgress]:
    return [RunProgress(f"{a}/seed{s}", a, s, steps, 5) for a in ("alpha", "beta") for s in range(seeds)]


def train(step: int, **metrics: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "reward": 0.25, "length": 12.5, "tokens_sampled": 1234, **metrics}


def screen(progress: Progress) -> str:
    with progress.console.capture() as capture:
        progress.console.print(progress.render())
    return capture.get()


def console(height: int = 40, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, height=height, color_system=None)


def test_a_row_shows_the_latest_of_its_run() -> None:
    progress = Progress(runs(), console())
    progress.on_event("alpha/seed1", {"kind": "start", "step": 0, "steps": 10})
    progress.on_event("alpha/seed1", {"kind": "eval", "step": 0, "accuracy": 0.125})
    progress.on_event("alpha/seed1", train(3, entropy=None))
    progress.on_event("alpha/seed1", {"kind": "eval", "step": 3, "accuracy": 0.5})
    progress.on_event("beta/seed0", {"kind": "end", "step": 4, "state": "failed"})
    lines = screen(progress).splitlines()
    (row,) = [line for line in lines if line.startswith("alpha") and line.split()[1] == "1"]
    assert row.split() == ["alpha", "1", "3/10", "0.250", "12%", "→", "50%", "12.5", "1.23k", "training"]
    (row,) = [line for line in lines if line.startswith("beta") and line.split()[1] == "0"]
    assert row.split() == ["beta", "0", "4/10", "failed"]


def test_runs_that_would_not_fit_are_shown_as_algorithms() -> None:
    progress = Progress(runs(seeds=4), console(height=12))
    for seed, reward in enumerate([0.1, 0.2, 0.3, 0.4]):
        progress.on_event(f"alpha/seed{seed}", train(5 + seed, reward=reward))
    lines = screen(progress).splitlines()
    assert len(lines) == 1 + 2 + 1
    (row,) = [line for line in lines if line.startswith("alpha")]
    assert row.split()[:4] == ["alpha", "4", "5/10", "0.250"]


def test_estimate_of_the_time_left() -> None:
    clock = Clock()
    progress = Progress(runs(seeds=1), console(), clock=clock)
    progress.started = clock.now
    for name in ("alpha/seed0", "beta/seed0"):
        progress.on_event(name, {"kind": "start", "step": 0, "steps": 10})
    assert progress.seconds_left is None
    clock.now += 30
    progress.on_event("alpha/seed0", train(5))
    progress.on_event("beta/seed0", train(1))
    assert progress.fraction == pytest.approx(6 / 20)
    assert progress.seconds_left == pytest.approx(30 / 6 * 14)


def test_estimate_of_a_resumed_run_counts_only_this_session() -> None:
    clock = Clock()
    progress = Progress([RunProgress("a", "a", 0, 100)], console(), clock=clock)
    progress.started = clock.now
    progress.on_event("a", {"kind": "start", "step": 90, "steps": 100})
    for step in (1, 90):  # what the folder already held is told again, to be shown
        progress.on_event("a", train(step))
    assert progress.seconds_left is None
    clock.now += 10
    progress.on_event("a", train(95))
    assert progress.fraction == pytest.approx(0.95)
    assert progress.seconds_left == pytest.approx(10)


def test_a_failed_run_has_nothing_left_to_do() -> None:
    progress = Progress(runs(seeds=1), console())
    progress.on_event("alpha/seed0", train(10))
    progress.on_event("alpha/seed0", {"kind": "end", "step": 10, "state": "done"})
    progress.on_event("beta/seed0", {"kind": "end", "step": 2, "state": "failed"})
    assert progress.fraction == 1
    assert progress.seconds_left == 0
    assert "beta - (1 failed)" in progress.line()


def test_names_with_brackets_are_not_taken_for_markup() -> None:
    out = io.StringIO()
    one = RunProgress("grpo[kl=none]/seed0", "grpo[kl=none]", 0, 10, 5)
    with Progress([one], Console(file=out, force_terminal=False, width=80)) as progress:
        progress.on_event(one.name, train(10))
    assert [line.count("grpo[kl=none]") for line in out.getvalue().splitlines()] == [1, 1]


def test_the_state_says_what_a_run_is_doing() -> None:
    progress = Progress(runs(seeds=1), console())
    run = progress.runs["alpha/seed0"]
    shown = []
    for record in (
        {"kind": "start", "step": 0, "steps": 10},
        {"kind": "eval", "step": 0, "accuracy": 0.5},
        train(4),
        train(5),
        {"kind": "eval", "step": 5, "accuracy": 0.5},
        train(10),
    ):
        progress.on_event("alpha/seed0", record)
        shown.append(run.state)
    assert shown == ["evaluating", "training", "training", "evaluating", "training", "evaluating"]


def test_after_the_last_step_it_says_what_it_is_waiting_for() -> None:
    with Progress(runs(seeds=1), console()) as progress:
        for name in progress.runs:
            progress.on_event(name, train(10))
        assert progress.line().split("  ")[1].endswith("last evaluation")
        for name in progress.runs:
            progress.on_event(name, {"kind": "end", "step": 10, "state": "done"})
        assert progress.line().split("  ")[1].endswith("writing the report")
    assert progress.line().split("  ")[1].endswith("done")


def test_without_a_terminal_a_line_now_and_then() -> None:
    clock, out = Clock(), io.StringIO()
    narrow = Console(file=out, force_terminal=False, width=80)
    with Progress(runs(seeds=1), narrow, seconds_between_lines=15, clock=clock) as progress:
        progress.on_event("alpha/seed0", {"kind": "eval", "step": 0, "accuracy": 0.5})
        heading = "training alpha, beta: 10 steps, evaluated every 5"
        assert out.getvalue().splitlines() == [heading]
        clock.now += 20
        progress.on_event("beta/seed0", train(2))
        progress.on_event("beta/seed0", train(3))
        assert out.getvalue().splitlines()[1:] == [
            " 10%  0:20 elapsed, 3:00 left  held-out: alpha 50.0%, beta reward 0.25"
        ]
    assert len(out.getvalue().splitlines()) == 3


def test_in_a_terminal_the_table_is_redrawn_and_stays() -> None:
    screen = console(terminal=True)
    with Progress(runs(), screen) as progress:
        progress.on_event("alpha/seed0", train(7))
    assert "7/10" in screen.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_of_runs_that_never_begin(terminal: bool) -> None:
    screen = console(terminal=terminal)
    with pytest.raises(ValueError, match="bad"), Progress(runs(), screen):
        raise ValueError("bad settings")
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "alpha" not in text and "elapsed" not in text


def test_forms_of_numbers() -> None:
    assert [clock_time(s) for s in (0, 59.6, 61, 3725)] == ["0:00", "1:00", "1:01", "1:02:05"]
    assert [short_count(n) for n in (0, 950, 12_345, 4_560_000, 2e9, 123_456)] == [
        "0",
        "950",
        "12.3k",
        "4.56M",
        "2.00G",
        "123k",
    ]
