"""Synthetic runs are valid run folders, and the table has the measurements."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.report import Measured, fitting, invent, markdown
from rlzoo.report.charts import METRICS
from rlzoo.report.page import write_report
from rlzoo.report.panels import PAGE, PANELS
from rlzoo.report.read import read_study


def test_invented_runs_have_a_whole_report(tmp_path: Path) -> None:
    for strength, config in zip((0.7, 0.9), fitting(4), strict=False):
        invent(tmp_path / config.name, config, strength)
    study = read_study(tmp_path, METRICS)
    assert len(study.ended) == len(study.algorithms) == 2 and study.progress == 1
    page = write_report(tmp_path).read_text()
    assert all(f"<h3>{PANELS[key].title.replace(chr(39), '&#39;')}</h3>" in page for key in PAGE)


def test_the_table_has_a_row_for_each_size() -> None:
    text = markdown({"1 x 2 x 3": Measured(1.25, 0.5, 488.2, 0.26, 1.4)}, "python -m benchmarks.report")
    assert re.search(r"^\| 1 x 2 x 3 \| 1 MB \| 1\.\d s \| 0\.5 s \| 488 MiB \| 0\.26 MB \|$", text, re.MULTILINE)
