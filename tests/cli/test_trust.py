"""A folder of somebody else's: whatever is done with it, no code of theirs runs, nothing is written outside of it."""

# ruff: noqa: F811  fixtures of another folder are imported, and then are arguments

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.config.task import TaskConfig
from rlzoo.config.trust import Code, code_in, refuse_code
from rlzoo.errors import UserError
from rlzoo.training.launch import train
from tests.cli.test_app import rlzoo
from tests.runs import backbone, make_config, model_folder  # noqa: F401  in the place of this folder's fixtures


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig], backbone: Any) -> Path:
    """A run of two steps that has ended."""
    folder = tmp_path_factory.mktemp("made") / "grpo" / "seed0"
    train(make_config(train={"steps": 2}), folder, backbone=backbone)
    return folder


@pytest.fixture
def hostile(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run with a reward in its settings whose module leaves a file behind when it is imported."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs" / "grpo" / "seed0"
    shutil.copytree(finished, folder)
    code = f"open({str(tmp_path / 'sprung')!r}, 'w')\ndef graded(completions, **_): return [1.0] * len(completions)\n"
    (folder / "trap.py").write_text(code)
    change(folder, "task.reward", str(folder / "trap.py") + ":graded")
    return folder


def change(folder: Path, name: str, value: Any) -> None:
    """Edit a setting in a run's config.json."""
    stored = json.loads((folder / "config.json").read_text())
    *tables, last = name.split(".")
    inner = stored
    for table in tables:
        inner = inner[table]
    inner[last] = value
    (folder / "config.json").write_text(json.dumps(stored))


def sprung(folder: Path) -> bool:
    return (folder.parents[2] / "sprung").exists()


def said(result: Any) -> str:
    """What stands on both streams, on one line."""
    return " ".join(result.output.split())


def test_evaluate_runs_the_code_of_a_folder_only_when_it_is_trusted(hostile: Path) -> None:
    told = said(rlzoo("evaluate", hostile, code=2, width=1000))
    assert not sprung(hostile)
    assert f"task.reward = '{hostile / 'trap.py'}:graded'" in told
    assert f"function 'graded' of the file {hostile / 'trap.py'}" in told and "--trust" in told
    rlzoo("evaluate", hostile, "--trust", "--json", "--prompts", 2)
    assert sprung(hostile)


def test_what_is_typed_over_it_needs_no_trust(hostile: Path) -> None:
    rlzoo("evaluate", hostile, "--task", "even", "--json", "--prompts", 2)
    (Path.cwd() / "mine.py").write_text("def fine(completions, **_): return [0.0] * len(completions)\n")
    rlzoo("evaluate", hostile, "--set", "task.reward=mine.py:fine", "--json", "--prompts", 2)
    assert not sprung(hostile)


@pytest.mark.parametrize("path", ["os:system", "subprocess:getoutput"])
def test_a_function_of_a_library_is_code_too(hostile: Path, path: str) -> None:
    change(hostile, "task.accuracy", path)
    change(hostile, "task.reward", None)
    assert f"task.accuracy = '{path}'" in said(rlzoo("evaluate", hostile, code=2, width=1000))


def test_resume_from_the_settings_of_a_folder_runs_none_of_its_code(hostile: Path) -> None:
    told = said(rlzoo("train", "--config", hostile / "config.json", "--out", hostile, "--resume", code=2, width=1000))
    assert "--trust" in told and not sprung(hostile)


def test_report_and_curves_run_none_of_its_code(hostile: Path) -> None:
    rlzoo("report", hostile.parents[1])
    rlzoo("report", hostile)
    rlzoo("curves", hostile, "--out", hostile.parents[2] / "curves.svg")
    assert not sprung(hostile)


@pytest.mark.parametrize(
    "name", ["../../x", "/abs/x", "", ".", "..", "a/b", "tune", "nul\0l", "half\ud800", "x" * 300, "a b", "$x$", "x."]
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(hostile: Path, name: str) -> None:
    change(hostile, "task.reward", None)
    change(hostile, "objective.name", name)
    before = sorted(hostile.parents[2].rglob("*"))
    told = said(rlzoo("train", "--config", hostile / "config.json", code=2, width=1000))
    assert "objective: " in told and ("folder" in told)
    rlzoo("evaluate", hostile, code=2)
    assert sorted(hostile.parents[2].rglob("*")) == before


def test_a_report_replaces_no_device(hostile: Path) -> None:
    told = said(rlzoo("report", hostile, "--out", "/dev/null", code=2, width=1000))
    assert "no regular file" in told
    assert Path("/dev/null").is_char_device()


def test_nothing_is_written_through_a_link_in_a_folder(hostile: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (hostile / "report.html").symlink_to(precious)
    assert "is a symbolic link" in said(rlzoo("report", hostile, code=2, width=1000))
    change(hostile, "task.reward", None)
    (hostile / "metrics.jsonl").unlink()
    (hostile / "metrics.jsonl").symlink_to(precious)
    rlzoo("train", "--config", hostile / "config.json", "--out", hostile, "--resume", code=2)
    assert precious.read_text() == "kept"


def test_every_setting_that_is_an_import_path_is_marked_as_code() -> None:
    marked = {name for name, field in TaskConfig.model_fields.items() if Code() in field.metadata}
    assert {"reward", "accuracy"} <= marked
    config = RunConfig(objective="grpo", task={"name": "sort", "reward": "a:b"})
    assert list(code_in(config)) == [("task.reward", "a:b")]
    refuse_code(config, "x.json", typed=["task"])
    refuse_code(RunConfig(objective="grpo"), "x.json")
    with pytest.raises(UserError, match=r"x\.json names code"):
        refuse_code(config, "x.json", typed=["task.accuracy"])


def test_the_doctor_names_what_is_damaged_and_runs_nothing(hostile: Path) -> None:
    change(hostile, "task.reward", None)
    assert "nothing wrong was found" in said(rlzoo("doctor", hostile.parents[1], width=1000))
    weights = hostile / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    told = said(rlzoo("doctor", hostile, code=1, width=1000))
    assert "adapter_model.safetensors is not what was written: its checksum differs" in told
    told = said(rlzoo("evaluate", hostile, code=2, width=1000))
    assert "adapter_model.safetensors is not what was written" in told and "rlzoo doctor" in told
    assert not sprung(hostile)
