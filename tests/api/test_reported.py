"""Reports of runs, and that a failure to write one ends no run."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.api import reported
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.report import live, page
from rlzoo.report.outputs import draw_curves
from rlzoo.stats.sentences import sentences
from rlzoo.store.run_folder import CURVES

MakeConfig = Callable[..., RunConfig]


def comparison(make_config: MakeConfig, **changes: Any) -> CompareConfig:
    shared = make_config().model_dump(exclude={"objective", "seed", "control"})
    return CompareConfig.model_validate(shared | {"objectives": ["reinforce", "grpo"], "seeds": 2} | changes)


def test_a_comparison_has_a_report_and_draws_no_picture_unasked(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    result = reported.compare(comparison(make_config), tmp_path, backbone=backbone)
    report = (tmp_path / "report.html").read_text()
    assert sentences(result.judgement)[0] in html.unescape(report) and "Not finished" not in report
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.svg"))
    (drawn, _) = draw_curves([tmp_path], tmp_path / CURVES)
    assert drawn.stat().st_size > 10_000


def test_a_report_that_cannot_be_written_costs_nothing(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise UserError("cannot write: the disk is full")

    monkeypatch.setattr(live, "EVERY", 0.0)  # at every record
    monkeypatch.setattr(live, "SHARE", 1e9)
    for module in (live, page):
        monkeypatch.setattr(module, "write_report", full)
    with pytest.warns(UserWarning, match="the disk is full") as warned:
        result = reported.compare(comparison(make_config), tmp_path, backbone=backbone)
    assert [summary["state"] for summary in result.summaries] == ["done"] * 4
    said = [str(warning.message) for warning in warned]
    assert "the live report could not be written: UserError: cannot write: the disk is full" in said
    assert said[-1] == "cannot write: the disk is full"
