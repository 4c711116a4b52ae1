"""Tasks by name: what a string means, and that nothing set is ever ignored."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pydantic
import pytest

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks import Problem, Split, Task, load_task, register_task, registry, task_kinds
from rlzoo.tasks.sort import Sort


class Echo(Task):
    """A third party's task."""

    kind = "echo"

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> Echo:
        return cls(config.name, None, config.reward, config.accuracy)

    def size(self, split: Split) -> int:
        return 1

    def problem(self, split: Split, index: int) -> Problem:
        return Problem("a", "a")

    def grade(self, problem: Problem, completion: str) -> float:
        return float(completion == problem.answer)


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))


def test_strings() -> None:
    assert load_task("sort").label == "sort:medium"
    assert load_task("sort:hard").label == "sort:hard"
    assert load_task(TaskConfig(name="sort", level="hard")).label == "sort:hard"
    assert load_task(TaskConfig.model_validate("sort:easy")).level == "easy"


def test_a_config_survives_json() -> None:
    config = TaskConfig(name="hf:openai/gsm8k", subset="main", prompt_column="question", chat=True)
    assert TaskConfig.model_validate_json(config.model_dump_json()) == config
    assert config.given() == {"name", "subset", "prompt_column", "chat"}


@pytest.mark.usefixtures("clean_registry")
def test_a_registered_class_is_known_by_name() -> None:
    register_task(Echo)
    assert load_task("echo").score([Problem("a", "a")], ["a"]).accuracy == [1.0]
    register_task(Echo)  # the same class again does no harm
    with pytest.raises(ValueError, match="'echo' is registered already"):
        register_task(type("Other", (Echo,), {}))


@pytest.mark.usefixtures("clean_registry")
def test_installed_packages_bring_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="echo", value=f"{__name__}:Echo", group="rlzoo.tasks")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Echo)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "rlzoo.tasks" else [])
    assert task_kinds()["echo"] is Echo
    assert task_kinds()["sort"] is Sort


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "sorrt"}, "unknown task 'sorrt'; did you mean 'sort'"),
        ({"name": "sort", "prompt_column": "question"}, "'prompt_column' does not apply to sort tasks.*level"),
        ({"name": "jsonl:x.jsonl", "level": "easy"}, "'level' does not apply to jsonl tasks"),
        ({"name": "hf:x", "test_path": "y"}, "'test_path' does not apply to hf tasks"),
        ({"name": "sort", "options": {}}, "'options' does not apply"),
        ({"name": "sort:easy", "level": "hard"}, "give the level once"),
    ],
)
def test_what_does_not_apply_is_an_error(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig.model_validate(config))


def test_misspelt_fields_are_an_error() -> None:
    with pytest.raises(pydantic.ValidationError, match="leval"):
        TaskConfig.model_validate({"name": "sort", "leval": "easy"})
