"""rlzoo report: what it writes where, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_app import rlzoo
from tests.report.folders import write_run, write_study


def test_report_and_tables_of_a_comparison(tmp_path: Path) -> None:
    write_study(tmp_path)
    assert rlzoo("report", tmp_path).stdout.split() == ["report:", str(tmp_path / "report.html")]
    assert not (tmp_path / "tables").exists()
    out = tmp_path / "elsewhere" / "mine.html"
    rlzoo("report", tmp_path, "--out", out, "--tables")
    assert out.exists() and (out.parent / "tables" / "results.tex").exists()


def test_what_has_no_report_is_refused(tmp_path: Path) -> None:
    assert "there is no run in" in rlzoo("report", tmp_path, code=2).output
    write_run(tmp_path, state=None)
    assert "has ended yet" in rlzoo("report", tmp_path, "--tables", code=2).output
