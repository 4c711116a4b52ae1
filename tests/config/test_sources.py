"""Settings from files and --set: what is read, what wins, and what an error tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.config.sources import override, parse_assignment, read_file
from rlzoo.errors import UserError


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("train.steps=100", ["train", "steps"], 100),
        ("optimizer.lr = 1e-3", ["optimizer", "lr"], 0.001),
        ("evaluation.greedy=true", ["evaluation", "greedy"], True),
        ("seeds=[1, 2]", ["seeds"], [1, 2]),
        ("task={name = 'sort', level = 'hard'}", ["task"], {"name": "sort", "level": "hard"}),
        ("task=sort:hard", ["task"], "sort:hard"),
        ('task="sort"', ["task"], "sort"),
        ("objective=gspo[ratio=token]", ["objective"], "gspo[ratio=token]"),
        ("backbone.model=", ["backbone", "model"], ""),
        ("backbone.model=~/a b", ["backbone", "model"], "~/a b"),
    ],
)
def test_assignments(text: str, path: list[str], value: Any) -> None:
    assert parse_assignment(text) == (path, value)


@pytest.mark.parametrize("text", ["steps", "=3", "train..steps=3", ".a=1"])
def test_an_assignment_without_a_name_or_value_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="not of the form name=value"):
        parse_assignment(text)


@pytest.mark.parametrize("text", ["seeds=[1, 2", 'task="sort', "task={name = sort}"])
def test_a_value_that_begins_like_toml_must_be_toml(text: str) -> None:
    with pytest.raises(UserError, match="not valid TOML"):
        parse_assignment(text)


def test_the_last_assignment_wins_and_the_file_stays_as_it_is() -> None:
    table = {"train": {"steps": 1, "group_size": 4}}
    result = override(table, ["train.steps=2", "optimizer.lr=0.5", "train.steps=3"])
    assert result == {"train": {"steps": 3, "group_size": 4}, "optimizer": {"lr": 0.5}}
    assert table == {"train": {"steps": 1, "group_size": 4}}


def test_below_a_value_there_is_nothing_to_set() -> None:
    with pytest.raises(UserError, match=r"train\.steps is the value 3 and has no settings below it"):
        override({"train": {"steps": 3}}, ["train.steps.x=1"])
    with pytest.raises(UserError, match=r"write it as objective=gspo\[surrogate\.high=0\.3\]"):
        override({"objective": "gspo"}, ["objective.surrogate.high=0.3"])


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('task = "sort"\n[train]\nsteps = 3\n')
    (tmp_path / "b.json").write_text('{"task": "sort", "train": {"steps": 3}}')
    assert read_file(tmp_path / "a.toml") == read_file(tmp_path / "b.json") == {"task": "sort", "train": {"steps": 3}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.toml", None, "there is no file"),
        ("bad.toml", b"a = 1\nb = = 2\n", r"bad\.toml is not valid TOML: .*line 2"),
        ("bad.json", b'{"a": 1,}', r"bad\.json is not valid JSON: .*line 1"),
        ("latin.toml", b'task = "\xe9"\n', "not valid TOML"),
        ("list.json", b"[1]", "holds no table"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_file(tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    ("model", "table", "message"),
    [
        (RunConfig, {"objective": "grppo"}, r"objective: unknown objective 'grppo'; did you mean 'grpo'\?"),
        (RunConfig, {}, "objective: is missing"),
        (CompareConfig, {"objectives": "grpo"}, r"""objectives: should be a list, such as \["grpo"\], got 'grpo'"""),
        (RunConfig, {"objective": "grpo", "sed": 1}, r"sed: no such setting; did you mean 'seed'\?"),
        (
            RunConfig,
            {"objective": "grpo", "train": {"group_sise": 4}},
            r"train\.group_sise: no such setting; did you mean 'group_size'\?",
        ),
        (
            RunConfig,
            {"objective": "grpo", "backbone": {"lora": {"rnk": 4}}},
            r"backbone\.lora\.rnk: no such setting; .*known: .*alpha",
        ),
        (RunConfig, {"objective": "grpo", "train": {"steps": "many"}}, r"train\.steps: .*integer.*, got 'many'"),
        (RunConfig, {"objective": "grpo", "train": {"steps": 0}}, r"train\.steps: .*greater than or equal to 1, got 0"),
        (
            RunConfig,
            {"objective": "grpo", "backbone": {"precision": "nf8"}},
            r"backbone\.precision: .*'nf4'.*got 'nf8'",
        ),
        (RunConfig, {"objective": "grpo", "train": {"group_size": 1}}, r"train\.group_size must be 2 or more"),
        (CompareConfig, {"objectives": ["grpo", "gspoo"]}, r"did you mean 'gspo'\?"),
        (
            CompareConfig,
            {"objectives": ["gspo", "gspo[ratio=token]"], "train": {"minibatches": 1}},
            "are one algorithm under this schedule",
        ),
    ],
)
def test_an_error_says_where_what_and_what_was_meant(model: Any, table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        validate(model, table, "demo.toml")
    assert str(caught.value).startswith("demo.toml cannot be used:\n  ")
    assert "Value error" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        validate(RunConfig, {"objective": "grpo", "sed": 1, "train": {"stepps": 1}, "optimizer": {"lr": -1}}, "x")
    assert len(str(caught.value).splitlines()) == 4
