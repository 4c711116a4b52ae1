"""The check of a GPU: its commands, its limits, and that the row it times has the published settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import LIMITS, ROW, ROW_STEPS, Part, parts, row_config, run_part
from rlzoo.experiments.reproduce import find


def test_all_parts_fit_into_ten_minutes_and_only_a_dry_check_is_on_the_cpu() -> None:
    assert sum(LIMITS.values()) <= 600 and [part.name for part in parts(Path("out"), dry=False)] == list(LIMITS)
    real, dry = ([" ".join(part.command) for part in parts(Path("out"), dry)] for dry in (False, True))
    assert "-m gpu" in real[0] and "--collect-only" in dry[0] and "--collect-only" not in real[0]
    assert "--device cuda" in real[1] and "--device cpu" in dry[1]
    assert "--row" in real[2] and real[2] + " --dry-run" == dry[2]


def test_the_timed_row_is_the_published_one_but_for_model_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu_check.SHAPES, "qwen2.5-1.5b-shape", gpu_check.TINY)
    ours, theirs = row_config(tmp_path, dry=False), find(ROW).config(ROW_STEPS, data=str(tmp_path))
    assert ours.objective == theirs.objective and ours.optimizer == theirs.optimizer and ours.engine == theirs.engine
    assert ours.backbone == theirs.backbone.model_copy(update={"model": str(tmp_path / "model")})
    assert ours.train == theirs.train.model_copy(update={"silent_steps": None, "save_every": ROW_STEPS})
    assert len((tmp_path / "gsm8k_train.jsonl").read_text().splitlines()) == 640
    assert gpu_check.SHAPES["qwen2.5-0.5b-shape"].layers == 24


def test_a_part_that_takes_too_long_is_stopped_and_keeps_its_output(tmp_path: Path) -> None:
    code = "import time; print('begun', flush=True); time.sleep(60)"
    made = run_part(Part("slow", [sys.executable, "-c", code]), 1.5, tmp_path)
    assert made["status"] is None and made["seconds"] < 30
    failed = run_part(Part("bad", [sys.executable, "-c", "print('no'); raise SystemExit(3)"]), 30, tmp_path)
    assert failed["status"] == 3 and (tmp_path / "bad.txt").read_text() == "no\n"
