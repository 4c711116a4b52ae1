"""The page of results about finished comparisons."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks.contests import main, section
from rlzoo.report.read import read_study
from tests.report.folders import edit_json, write_study


def test_a_page_says_what_came_out_and_how_it_was_made(tmp_path: Path) -> None:
    folders = [write_study(tmp_path / name, ("grpo", "dapo", "gspo")) for name in ("one", "two")]
    made_by = {"commit": "abc1234", "started": "2026-11-20T12:00:00+00:00", "cpu": "A CPU", "cores": 2}
    for path in tmp_path.glob("*/*/*/environment.json"):
        edit_json(path, **made_by)
    out = tmp_path / "page.md"
    main(folders, title="Contests", intro="Why.", write=out)
    text = out.read_text()
    assert text.startswith("# Contests\n\nWhy.\n\n## ")
    assert text.count("- command: `") == text.count("- commit: ") == 2
    judged = list(section(read_study(folders[0], ())))
    assert any("- gspo is better than each of the other 2 rows: 71.0%." in part for part in judged)
    rows = [line for line in text.splitlines() if line.startswith("| grpo |")]
    assert len(rows) >= 2 and all(line.count("|") == rows[0].count("|") for line in rows[::2])


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        main([tmp_path / "nothing"])
    assert "there is no run" in capsys.readouterr().err
