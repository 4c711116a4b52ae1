"""rlzoo power: what a bigger comparison would find."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.experiments.power import power_table
from tests.cli.test_app import rlzoo
from tests.report.folders import write_study


def study(folder: Path, seeds: int) -> Path:
    write_study(folder, ("grpo", "dapo"), seeds)
    config = {"objectives": ["grpo", "dapo"], "seeds": seeds, "task": "add:medium", "train": {"steps": 4}}
    (folder / "comparison.json").write_text(CompareConfig.model_validate(config).model_dump_json())
    for path in folder.glob("*/*/summary.json"):
        text = path.read_text().replace('"name"', '"before": null, "after": null, "name"')
        path.write_text(text)
    return folder


def test_more_of_either_finds_smaller_differences(tmp_path: Path) -> None:
    table = power_table(study(tmp_path, 4))
    found = table["detectable"]
    assert table["questions"] == 1 and table["level"] == pytest.approx(0.0375)
    assert found[8][1024] < found[4][1024] and found[8][1024] <= found[8][256]


def test_one_seed_says_nothing_of_what_varies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Run a pilot"):
        power_table(study(tmp_path, 1))


def test_the_command_prints_designs_and_where_the_error_is_from(tmp_path: Path) -> None:
    found = power_table(study(tmp_path, 4))["detectable"]
    printed = rlzoo("power", tmp_path).stdout
    line = next(line.split() for line in printed.splitlines() if line.split()[:1] == ["8"])
    assert line[1:] == [f"{100 * found[8][m]:.1f}" for m in (256, 1024, 4096)]
    assert "found with probability 0.8" in printed and "% from seeds" in " ".join(printed.split())
