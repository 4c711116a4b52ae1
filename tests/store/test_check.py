"""A run folder is checked byte by byte: what is whole has nothing said of it, and every damage is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.report.read import read_study
from rlzoo.store.check import check_run, notes_on
from rlzoo.training.launch import train
from tests.runs import backbone, make_config, model_folder  # noqa: F401  fixtures of another folder


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    make_config: Callable[..., RunConfig],  # noqa: F811
    backbone: Any,  # noqa: F811
) -> Path:
    """A run of three steps that has ended."""
    folder = tmp_path_factory.mktemp("whole") / "grpo" / "seed0"
    train(make_config(), folder, backbone=backbone)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(whole, tmp_path / "grpo" / "seed0")
    return tmp_path / "grpo" / "seed0"


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 4
    path.write_bytes(data)


def substitute(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text, count=1))


def lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("a bit of the adapter", lambda f: flip(f / "adapter/adapter_model.safetensors"), "its checksum differs"),
    ("a bit of the state", lambda f: flip(f / "state.pt", 0.4), "state.pt cannot be read.*checksum"),
    (
        "no adapter",
        lambda f: (f / "adapter/adapter_model.safetensors").unlink(),
        "adapter_model.safetensors is missing",
    ),
    ("no configuration left", lambda f: (f / "config.json").write_text("{}"), "config.json is damaged"),
    ("metrics emptied", lambda f: (f / "metrics.jsonl").write_text(""), "metrics.jsonl is shorter"),
    ("metrics halved", lambda f: lines(f / "metrics.jsonl", lambda x: x[: len(x) // 2]), "metrics.jsonl is shorter"),
    (
        "a garbage line",
        lambda f: lines(f / "metrics.jsonl", lambda x: [x[0], "garbage\n", *x[1:]]),
        "line 2 is not JSON",
    ),
    ("out of order", lambda f: lines(f / "metrics.jsonl", lambda x: x[::-1]), "step falls|jsonl falls from"),
    ("a line twice", lambda f: lines(f / "metrics.jsonl", lambda x: [*x, x[-2]]), "more than once|falls"),
    ("a line gone", lambda f: lines(f / "metrics.jsonl", lambda x: [x[0], *x[2:]]), "has no record of step 1"),
    (
        "a count",
        lambda f: substitute(f / "summary.json", r'"tokens_sampled": \d+', '"tokens_sampled": 7'),
        "tokens_sampled is 7",
    ),
    ("a sample", lambda f: substitute(f / "samples.jsonl", '"step": 3', '"step": 1'), "samples.jsonl"),
]


def test_a_run_as_it_was_written_has_nothing_wrong(whole: Path) -> None:
    assert check_run(whole) == [] and notes_on(whole) == []


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_every_damage_is_named(run: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(run)
    problems = check_run(run)
    assert re.search(message, "\n".join(problems)), problems


def test_an_accuracy_beyond_its_range_is_not_shown(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["after"]["accuracy"] = 7.5
    (run / "summary.json").write_text(json.dumps(summary))
    assert "after.accuracy" in check_run(run)[0] and "not 7.5" in check_run(run)[0]


def test_leftovers_and_other_versions_are_notes(run: Path) -> None:
    (run / "state.pt.partial").write_bytes(b"half")
    (run / "adapter" / "tmpx").mkdir()
    substitute(run / "environment.json", r'"torch": "[^"]+"', '"torch": "1.0"')
    assert check_run(run) == []
    assert [note.partition(" ")[0].rpartition("/")[2] for note in notes_on(run)] == [
        "state.pt.partial",
        "tmpx",
        "trained",
    ]
    assert "torch 1.0 (here" in notes_on(run)[-1]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "metrics.jsonl").write_text(""), "has accuracy .* after training|before training"),
        (lambda f: (f / "config.json").write_text("null"), "config.json is damaged"),
        (lambda f: (f / "config.json").unlink(), "its config.json is missing"),
        (lambda f: substitute(f / "metrics.jsonl", r'"accuracy": [\d.]+', '"accuracy": 7.5'), "not 7.5"),
    ],
)
def test_a_report_says_which_seed_it_leaves_out_and_why(
    run: Path, damage: Callable[[Path], object], reason: str
) -> None:
    other = run.parent / "seed1"
    shutil.copytree(run, other)
    substitute(other / "config.json", '"seed": 0', '"seed": 1')
    (run.parents[1] / "comparison.json").write_text('{"objectives": [{"name": "grpo"}], "seeds": [0, 1]}')
    assert read_study(run.parents[1], ()).left_out == []
    damage(other)
    study = read_study(run.parents[1], ())
    assert [one.seed for one in study.runs] == [0]
    assert len(study.left_out) == 1 and re.match(f"grpo/seed1: .*({reason})", study.left_out[0]), study.left_out
