"""The benchmarks that train run from start to page, at a tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import calibration, perfectibility, tasks

TINY = [
    "train.steps=1",
    "train.prompts_per_step=2",
    "train.group_size=2",
    "train.minibatches=2",
    "train.max_new_tokens=8",
    "evaluation.prompts=4",
]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text('objectives = ["grpo"]\nseeds = 8\n[task]\nname = "sort"\nlevel = "easy"\n')
    return path


def test_tasks(recipe: Path, tmp_path: Path) -> None:
    tasks.main(recipe, tmp_path / "runs", tmp_path / "page.md", "sort:easy", [*TINY, "seeds=2"])
    assert "## sort:easy" in (tmp_path / "page.md").read_text()


def test_calibration(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "TASKS", dict(list(calibration.TASKS.items())[:1]))  # one is enough here
    calibration.main(recipe, tmp_path / "runs", tmp_path / "page.md", trials=200, assignments=TINY)
    assert "8 runs of grpo: " in (tmp_path / "page.md").read_text()


def test_perfectibility(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perfectibility.main(recipe, tmp_path / "runs", problems=4, assignments=[*TINY, "seeds=2"])
    assert "problems are solved" in capsys.readouterr().out
