"""`rlzoo compare --task A,B` in the terminal: the table over tasks, what is printed below it, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlzoo.api import reported
from rlzoo.cli.tasks import notes, rows_table
from rlzoo.config.comparison import CompareConfig
from rlzoo.experiments.explain import explain
from rlzoo.experiments.tasks import TaskComparison, read_tasks
from tests.cli.test_app import rlzoo
from tests.report.test_tasks import TASKS, write_study


def test_a_row_has_its_mean_its_iqm_and_every_task(tmp_path: Path) -> None:
    made = read_tasks(write_study(tmp_path))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rows_table(made))
    head, _, *rows = console.export_text().splitlines()
    assert head.split() == ["mean", "IQM", "add:medium", "sort:hard"]
    assert [line.split()[0] for line in rows] == ["dapo", "grpo"] and rows[0].count("71.") >= 3
    assert notes(made)[-1].startswith(f"Report: {tmp_path / 'report.html'}")


def test_the_command_runs_all_tasks_and_prints_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs are written beforehand; the command's settings reach what would train them."""
    study, asked = write_study(tmp_path / "study"), list[CompareConfig]()

    def compare_tasks(config: CompareConfig, folder: Path, **options: Mapping[str, Any]) -> TaskComparison:
        asked.append(config)
        assert folder == tmp_path / "study" and options["resume"] is True
        return read_tasks(folder)

    monkeypatch.setattr(reported, "compare_tasks", compare_tasks)
    words = ["compare", "grpo", "dapo", "--task", ",".join(TASKS), "--steps", "4", "--out", study, "--resume"]
    printed = rlzoo(*words).stdout
    assert [task.label for task in asked[0].tasks] == list(TASKS) and asked[0].train.steps == 4
    assert "dapo is better than grpo: 71." in printed and printed.index("\nadd:medium\n") < printed.index(
        "\nsort:hard\n"
    )
    table = json.loads(rlzoo(*words, "--json").stdout)
    assert set(table["tasks"]) == set(TASKS) and len(table["runs"]) == 16
    assert table["judgement"]["pairs"][0]["verdict"] == "better"


def test_all_tasks_are_counted_before_they_train() -> None:
    config = CompareConfig.model_validate({"objectives": ["grpo", "dapo"], "seeds": 4, "task": list(TASKS)})
    alone = config.by_task()["sort:hard"]
    assert explain(config).runs == 2 * explain(alone).runs == 16
