"""The report of a comparison over tasks: the mean first, then every task with its link, all texts escaped."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from pathlib import Path

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.config.task import task_folder
from rlzoo.experiments.plan import declare
from rlzoo.experiments.tasks import read_tasks
from rlzoo.report.tasks import by_task, render, write_report, write_tables
from tests.cli.test_app import rlzoo
from tests.report.folders import edit_json, write_run

TASKS = ("add:medium", "sort:hard")


def write_study(folder: Path, rows: tuple[str, ...] = ("grpo", "dapo"), better: float = 0.2, seeds: int = 4) -> Path:
    """Write a comparison over two tasks that has ended: on each the last row is better by so much."""
    table = {"objectives": list(rows), "seeds": seeds, "task": list(TASKS), "train": {"steps": 4}}
    config = CompareConfig.model_validate(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(config.model_dump(mode="json")))
    declare(folder, Plan.of(config))
    for name, alone in config.by_task().items():
        place = folder / task_folder(name)
        for index, row in enumerate(rows):
            for seed in range(seeds):
                end = 0.5 + better * index + 0.01 * seed
                run = write_run(place, row, seed, (0.25, 0.4, end), task=name)
                measured = {"step": 0, "accuracy": 0.25, "length": 10.0}
                edit_json(run / "summary.json", before=measured, after=measured | {"accuracy": end})
        (place / "comparison.json").write_text(json.dumps(alone.model_dump(mode="json")))
        declare(place, Plan.of(alone, part_of=2))
    return folder


def test_the_mean_over_tasks_comes_first_and_every_task_has_a_link(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_report(tmp_path / "add-medium")  # that of the other task is not there, so nothing links to it
    page = write_report(tmp_path).read_text()
    assert "dapo is better than grpo: 71." in page and "mean over 2 tasks: add:medium, sort:hard (800 problems)" in page
    assert page.index('id="verdict"') < page.index('id="over-tasks"') < page.index('id="tasks"')
    assert '<a href="add-medium/report.html">add:medium</a>' in page and "<h3>sort:hard</h3>" in page
    assert 'class="s a' in page and "stratified bootstrap" in page
    elsewhere = write_report(tmp_path, tmp_path / "pages" / "mine.html").read_text()
    assert 'href="../add-medium/report.html"' in elsewhere
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1 and re.findall(r"(?:src|href)=\"(?!#|data:)([^\"]*)", page) == ["add-medium/report.html"]
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode("ascii")
    assert f"script-src 'sha256-{digest}'" in page


def test_verdicts_of_single_tasks_are_at_their_share_of_the_level(tmp_path: Path) -> None:
    made = read_tasks(write_study(tmp_path))
    table = by_task(made)
    assert [(row["task"], row["verdict"]) for row in table.rows] == [(name, "better") for name in TASKS]
    assert made.judgement.level == pytest.approx(0.05 * 0.75)
    assert made.comparisons["sort:hard"].judgement.level == pytest.approx(0.05 * 0.75 / 2)
    assert made.improvements["dapo", "grpo"].mean == 1.0


def test_tables_of_a_comparison_over_tasks(tmp_path: Path) -> None:
    write_study(tmp_path)
    assert rlzoo("report", tmp_path, "--tables").stdout.startswith(f"report: {tmp_path / 'report.html'}")
    rows = list(csv.DictReader((tmp_path / "tables" / "over_tasks.csv").open()))
    assert [row["algorithm"] for row in rows] == ["dapo", "grpo"]
    assert float(rows[1]["mean"]) == pytest.approx(0.515, abs=0.01) == pytest.approx(float(rows[1]["iqm"]), abs=0.01)
    assert {path.name for path in write_tables(tmp_path, tmp_path / "t")} == {
        f"{name}.{kind}"
        for name in ("over_tasks", "pairs", "improvement_over_tasks", "by_task")
        for kind in ("md", "csv", "tex")
    }


def test_before_its_end_it_has_no_verdict(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "sort-hard" / "dapo" / "seed3" / "summary.json").unlink()
    page = write_report(tmp_path).read_text()
    assert "No verdict: the plan is not complete: 1 of its runs has not ended." in page and "15 of 16 runs" in page
    (tmp_path / "sort-hard" / "comparison.json").unlink()
    assert "No row has a run on every task yet." in write_report(tmp_path).read_text()
    assert "has a run on every task yet" in rlzoo("report", tmp_path, "--tables", code=2).output


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    made = read_tasks(write_study(tmp_path))
    name = "<script>alert(1)</script>"
    hostile = {name: made.comparisons["add:medium"], "sort:hard": made.comparisons["sort:hard"]}
    page = render(type(made)(made.folder, made.config, hostile, made.judgement, made.declared), tmp_path)
    assert page.count("<script") == 1 and "&lt;script&gt;alert(1)" in page
