"""Tasks through `datasets`, from data made on the spot: folders of files and what save_to_disk writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks import load_task

ROWS = [{"question": f"{i}+1=?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(20)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """files/: train.jsonl and test.jsonl. single/: a saved Dataset. both/: a saved DatasetDict."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    root = tmp_path_factory.mktemp("hf")
    (root / "files").mkdir()
    for split, rows in (("train", ROWS[:15]), ("test", ROWS[15:])):
        (root / "files" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    datasets.Dataset.from_list(ROWS).save_to_disk(root / "single")
    parts = {"train": ROWS[:15], "validation": ROWS[15:]}
    both = datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in parts.items()})
    both.save_to_disk(root / "both")
    (root / "blank").mkdir()
    (root / "blank" / "train.jsonl").write_text("")
    datasets.Dataset.from_dict({"question": [], "answer": []}).save_to_disk(root / "empty")
    return root


def test_data_files(folder: Path) -> None:
    task = load_task(TaskConfig(name=f"hf:{folder}/files", prompt_column="question", chat=True))
    assert (task.size("train"), task.size("test")) == (15, 5)
    problem = task.problem("test", 0)
    assert problem.prompt == [{"role": "user", "content": "15+1=?"}]
    assert problem.columns == {"answer": "It is 16.\n#### 16"}
    scores = task.score([problem] * 3, ["16", r"so \boxed{16}", "15"])
    assert scores.accuracy == [1, 1, 0]


def test_slices_of_a_split(folder: Path) -> None:
    config = TaskConfig(
        name=f"hf:{folder}/files", prompt_column="question", train_split="train[:10]", test_split="train[10:]"
    )
    task = load_task(config)
    assert (task.size("train"), task.size("test")) == (10, 5)
    assert task.problem("test", 0).prompt == "10+1=?"


def test_saved_to_disk(folder: Path) -> None:
    config = TaskConfig(name=f"hf:{folder}/both", prompt_column="question", test_split="validation")
    assert load_task(config).problem("test", 4).prompt == "19+1=?"
    held_out = load_task(TaskConfig(name=f"hf:{folder}/single", prompt_column="question", test_fraction=0.2))
    assert (held_out.size("train"), held_out.size("test")) == (16, 4)
    prompts = {s: {str(held_out.problem(s, i).prompt) for i in range(held_out.size(s) or 0)} for s in ("train", "test")}
    assert len(prompts["train"] | prompts["test"]) == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "hf"}, "write hf:DATASET"),
        ({"name": "hf:{folder}/nowhere"}, "cannot read split 'train' of .*nowhere"),
        ({"name": "hf:{folder}/files"}, "no column 'prompt'; set prompt_column .*question"),
        ({"name": "hf:{folder}/files", "prompt_column": "question", "test_split": "dev"}, "cannot read split 'dev'"),
        ({"name": "hf:{folder}/both", "prompt_column": "question"}, "no split 'test'.*known: train, validation"),
        ({"name": "hf:{folder}/single", "test_fraction": 0.1}, "row 0: no column 'prompt'"),
        ({"name": "hf:{folder}/single", "subset": "main", "test_fraction": 0.1}, "subset does not apply"),
        ({"name": "hf:{folder}/single", "test_split": "test", "test_fraction": 0.1}, "not both"),
        ({"name": "hf:{folder}/blank", "test_fraction": 0.1}, "empty"),
        ({"name": "hf:{folder}/empty", "test_fraction": 0.1}, "cannot read split 'train'.*may be empty"),
    ],
)
def test_clear_errors(folder: Path, settings: dict[str, object], message: str) -> None:
    name = str(settings["name"]).format(folder=folder)
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig.model_validate({**settings, "name": name}))
