"""The search before a comparison as a curve, and rows over the whole range, from folders with known numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.report.charts import METRICS
from rlzoo.report.page import render
from rlzoo.report.read import read_study
from rlzoo.report.sensitivity import Sensitivity, curve_table, range_table, read_search
from tests.report.folders import write_run, write_study

FINAL = {"grpo": {1e-3: 0.75, 2e-3: 0.5, 4e-3: 0.25}, "dapo": {1e-3: 0.5, 2e-3: 0.75, 4e-3: 0.5}}
BEST = {"grpo": 1e-3, "dapo": 2e-3}


def searched(folder: Path) -> Path:
    """A comparison with a search of two seeds at three rates."""
    write_study(folder, ("grpo", "dapo"), seeds=2)
    for row, finals in FINAL.items():
        for rate, final in finals.items():
            for seed in (2_000_000, 2_000_001):
                path = write_run(folder / "tune" / f"lr={rate!r}", row, seed, (0.25, final))
                config = json.loads((path / "config.json").read_text())
                config["optimizer"]["lr"] = rate
                (path / "config.json").write_text(json.dumps(config))
    given = {"objectives": list(FINAL), "seeds": 2, "tune": {"values": [1e-3, 2e-3, 4e-3]}, "tuned": BEST}
    stored = CompareConfig.model_validate(given).model_dump(mode="json")
    (folder / "comparison.json").write_text(json.dumps(stored))
    return folder


def test_the_search_is_read_from_its_runs(tmp_path: Path) -> None:
    search = read_search(read_study(searched(tmp_path), METRICS))
    assert search is not None and search.field == "lr"
    for row, finals in FINAL.items():
        assert {value: one.mean for value, one in search.means(row).items()} == pytest.approx(finals)
    assert search.edges == ["grpo"] and search.ties == []
    table = curve_table(search)
    assert [row["best"] for row in table.rows] == ["0.001 (at the edge)", "0.002"]
    # Over the range: grpo (0.75 + 0.5 + 0.25) / 3 = 0.5, dapo (0.5 + 0.75 + 0.5) / 3 = 0.5833; 8.3 points apart.
    assert [float(np.mean(list(search.over_the_range(row).values()))) for row in FINAL] == pytest.approx([0.5, 7 / 12])
    (row,) = range_table(search).rows
    assert row["difference"].mean == pytest.approx(-1 / 12)  # type: ignore[union-attr]


def test_the_page_has_curve_tables_and_words(tmp_path: Path) -> None:
    page = render(read_study(searched(tmp_path), METRICS))
    assert "Sensitivity to lr" in page and "Over the whole range" in page and "0.001 (at the edge)" in page
    for value in ("0.001", "0.002", "0.004"):  # the axis names the values tried
        assert f'text-anchor="middle">{value}</text>' in page
    assert "sensitivity" not in render(read_study(write_study(tmp_path / "without"), METRICS)).split("<script>")[0]


def test_ties_are_said_and_verdicts_are_of_the_whole_range() -> None:
    """Ten seeds; b is 10 points better at both values: better over the range. a has 50% at both: a tie."""
    noise = {seed: 0.001 * (seed % 3) for seed in range(10)}
    a = {value: {seed: 0.5 + d for seed, d in noise.items()} for value in (0.1, 0.2)}
    b = {value: {seed: 0.6 + 2 * d + value / 100 for seed, d in noise.items()} for value in (0.1, 0.2)}
    search = Sensitivity("lr", {"a": a, "b": b}, {"a": 0.1, "b": 0.2}, 0.02)
    assert search.ties == ["a"] and "Two values tie for the best of a" in curve_table(search).caption
    (row,) = range_table(search).rows
    assert row["verdict"] == "worse"
