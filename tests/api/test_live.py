"""Progress display: a table in a notebook, the live view in a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from rlzoo.api import live
from rlzoo.config.run import RunConfig
from rlzoo.experiments.watch import unwatched


class Handle:
    """A notebook's output: what was shown, in order."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, page: str) -> None:
        self.shown.append(page)


class ZMQInteractiveShell:
    """Named as the shell of a kernel is."""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Handle:
    handle = Handle()

    def display(page: str, display_id: bool) -> Handle:
        assert display_id
        handle.update(page)
        return handle

    main, shown_in = ModuleType("IPython"), ModuleType("IPython.display")
    main.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    shown_in.HTML, shown_in.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", main)
    monkeypatch.setitem(sys.modules, "IPython.display", shown_in)
    return handle


def runs() -> dict[str, RunConfig]:
    made = [RunConfig(objective="grpo", seed=seed) for seed in (0, 1)]  # type: ignore[arg-type]
    return {run.name: run for run in made}


def test_a_table_follows_the_runs_once_a_second(notebook: Handle) -> None:
    """Two seeds of 60 steps; rewards 0.25 and 0.75 have the mean 0.5; the clock stands at 0, then 0.5, 1.5 and 2."""
    now = [0.0]
    assert live.watcher(None) is live.notebook_table
    with live.notebook_table(runs(), clock=lambda: now[0]) as on_record:
        assert on_record is not None and "0 of 2" in notebook.shown[-1]
        record: dict[str, Any] = {"kind": "train", "step": 3, "tokens_sampled": 600}
        for seed, (time, reward) in enumerate(((0.5, 0.25), (1.5, 0.75))):
            now[0] = time
            on_record(f"grpo/seed{seed}", record | {"reward": reward})
        assert len(notebook.shown) == 2
        assert "<td>3 of 60</td>" in notebook.shown[-1] and "<td>0.500</td><td>1.20k</td>" in notebook.shown[-1]
        now[0] = 2.0
        on_record("grpo/seed0", {"kind": "end", "step": 60, "state": "done"})
        assert len(notebook.shown) == 2
    assert "1 of 2" in notebook.shown[-1] and "0:02 elapsed" in notebook.shown[-1]


def test_an_interrupted_table_stays(notebook: Handle) -> None:
    with pytest.raises(KeyboardInterrupt), live.notebook_table(runs()):
        raise KeyboardInterrupt
    assert len(notebook.shown) == 2


def test_elsewhere_there_is_a_view_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert live.watcher(None) is unwatched and live.watcher(True) is live.terminal_view
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert live.watcher(None) is live.terminal_view and live.watcher(False) is unwatched
    with live.terminal_view(runs()) as on_record:
        assert on_record is not None
