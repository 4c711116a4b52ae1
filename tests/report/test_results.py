"""The table of pairs: where its error is from, whether pairing pays, and the margin that was asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlzoo.report.charts import METRICS
from rlzoo.report.page import write_report
from rlzoo.report.read import read_study
from rlzoo.report.results import judge_runs, pairs
from tests.report.folders import write_plan, write_run, write_study


def test_a_pair_says_where_its_error_is_from_and_whether_pairing_pays(tmp_path: Path) -> None:
    """Both rows rise by a point per seed, so they correlate fully; shares of the squared error add up to all of it."""
    judged = judge_runs(read_study(write_study(tmp_path, seeds=4), METRICS))
    (row,), (pair,) = pairs(judged).rows, judged.pairs
    shares = pair.found.shares
    assert shares is not None and sum(shares.values()) == pytest.approx(1.0)
    assert (row["of_seeds"], row["of_problems"]) == (shares["seeds"], shares["problems"])
    assert row["correlation"] == pytest.approx(1.0)
    assert "pairing pays above 0.4 with four seeds" in pairs(judged).caption
    page = write_report(tmp_path).read_text()
    for heading in ("error from seeds", "from problems", "correlation"):
        assert re.search(rf"<th [^>]*>{heading}<", page)


def test_a_page_has_the_margin_of_the_plan_while_runs_train(tmp_path: Path) -> None:
    write_plan(tmp_path, ("grpo", "dapo"), 4, margin=0.05)
    for seed in range(3):
        for row, end in (("grpo", 0.5), ("dapo", 0.7)):
            write_run(tmp_path, row, seed, (0.25, 0.4, end + 0.01 * seed))
    judged = judge_runs(read_study(tmp_path, METRICS))
    assert judged.margin == 0.05 and [pair.verdict for pair in judged.pairs] == [None]
    page = write_report(tmp_path).read_text()
    assert "the plan is not complete" in page and "is better than" not in page
