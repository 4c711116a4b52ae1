"""The benchmarks that train run from start to page, at a tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import calibration, calibration_runs, perfectibility, tasks

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


def test_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of simulated comparisons, then the section of runs at its end, twice: it replaces itself."""
    monkeypatch.setattr(calibration, "TASKS", dict(list(calibration.TASKS.items())[:1]))  # one is enough here
    recipe, page = tmp_path / "recipe.toml", tmp_path / "page.md"
    recipe.write_text('objectives = ["grpo", "reinforce"]\nseeds = 4\n[task]\nname = "sort"\nlevel = "easy"\n')
    calibration.main(page, trials=200)
    assert page.read_text().startswith("# Calibration of the verdicts")
    for resume in (False, True):
        calibration_runs.main(recipe, tmp_path / "runs", page, 20, TINY, resume)
    text = page.read_text()
    assert text.count(calibration_runs.TITLE) == 1 and text.index("## Looks") < text.index(calibration_runs.TITLE)
    assert "4 runs of grpo, 4 of reinforce" in text and "| grpo against reinforce | 32 | 2 |" in text


def test_perfectibility(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perfectibility.main(recipe, tmp_path / "runs", problems=4, assignments=[*TINY, "seeds=2"])
    assert "problems are solved" in capsys.readouterr().out
