"""Tables on the screen: in a narrow terminal a long name is broken and every number stands whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from rlzoo.cli.report import comparison_table, run_table
from rlzoo.config.comparison import CompareConfig
from rlzoo.experiments.compare import Comparison
from rlzoo.experiments.rows import Row
from rlzoo.stats.intervals import Interval
from rlzoo.stats.judge import judge


def lines(table: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return out.getvalue().splitlines()


def comparison(*names: str) -> Comparison:
    """Two seeds each, the gain as wide as two seeds make it."""
    before, after = Interval(0.312, 0.312, 0.312, 2), Interval(0.391, -0.205, 0.987, 2)
    gain = Interval(0.078, -0.518, 0.674, 2)
    rows = [Row(name, 2, 0, before, after, gain, 15.0, 16.9, 8, 12_345, 0, 75.0) for name in names]
    summaries: list[dict[str, Any]] = []
    return Comparison(Path("runs"), CompareConfig(objectives=["grpo"]), rows, summaries, 75.0, judge({}), None, [])


@pytest.mark.parametrize("width", [72, 80, 100])
def test_a_long_name_is_broken_and_no_number_is(width: int) -> None:
    name = "grpo[surrogate.high=0.28]+random_reward"
    shown = lines(comparison_table(comparison("grpo", name), width), width)
    assert max(map(len, shown)) <= width and "…" not in "".join(shown)
    for word in ("before", "points", "sampled", "engine", "39.1 ± 59.6", "+7.8 ± 59.6", "12.3k", "1:15"):
        assert any(word in line for line in shown), word
    assert any("15.0→16.9" in line for line in shown) == (width >= 90)
    # Left of a line's first space is its part of the name; the first lines are the headings and grpo's own.
    assert "".join(line.split(" ")[0] for line in shown).endswith(name)


def test_a_run_has_its_whole_name_and_numbers_at_80_columns() -> None:
    summary = {
        "name": "dapo[select=all,shape=none]/seed10",
        "state": "done",
        "step": 60,
        "before": {"accuracy": 0.5, "length": 14.2},
        "after": {"accuracy": 0.625, "length": 18.2},
        "tokens_sampled": 123_456,
        "elapsed_s": 3_723,
    }
    shown = lines(run_table([summary]), 80)
    assert "…" not in "".join(shown)
    for word in ("50.0%", "62.5%", "14.2 → 18.2", "123k", "1:02:03"):
        assert any(word in line for line in shown), word
    assert "".join(line.split()[0] for line in shown[3:] if line.strip()).startswith(summary["name"])
