"""Reward functions by import path: how they are called, and what is said when they break the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks import Problem, load_task
from rlzoo.tasks.rewards import RewardFunction

FUNCTIONS = """
import math
def length(completions, **columns): return [len(c) for c in completions]
def sees(completions, prompts, answer, level, **rest):
    assert sorted(rest) == [], rest
    return [float((p, a, l) == ("S21=", "12", "easy")) for p, a, l in zip(prompts, answer, level)]
def narrow(completions, answer): return [float(c == a) for c, a in zip(completions, answer)]
def optional(completions, weight=2.0): return [weight for _ in completions]
def some(completions, **columns): return [None if c == "?" else 1 for c in completions]
def chat(completions, **columns): return [c[0]["role"] == "assistant" and len(c[0]["content"]) for c in completions]
def raises(completions, **columns): return [1 / len(c) for c in completions]
def short(completions, **columns): return [1.0]
def nan(completions, **columns): return [1.0, math.nan]
def infinite(completions, **columns): return [math.inf, 1.0]
def text(completions, **columns): return [1.0, "good"]
def scalar(completions, **columns): return 1.0
def nothing(completions, **columns): pass
def lost(completions, target): return [0.0 for _ in completions]
not_a_function = 3
"""
PROBLEMS = [Problem("S21=", "12", {"answer": "12", "level": "easy"})] * 2


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "functions.py"
    path.write_text(FUNCTIONS)
    return path


def call(file: Path, name: str, completions: tuple[str, str] = ("12", "?")) -> list[float | None]:
    return RewardFunction.load(f"{file}:{name}", "reward")(PROBLEMS, completions)


def test_reward_is_separate_from_accuracy(file: Path) -> None:
    task = load_task(TaskConfig(name="sort", reward=f"{file}:length"))
    problem = task.problem("train", 0)
    scores = task.score([problem, problem], [problem.answer, "1"])
    assert scores.accuracy == [1.0, 0.0]
    assert scores.reward == [float(len(problem.answer)), 1.0]


def test_accuracy_can_be_a_function_and_is_then_the_reward_too(file: Path) -> None:
    task = load_task(TaskConfig(name="sort", accuracy=f"{file}:narrow"))
    scores = task.score(PROBLEMS, ["12", "1>12"])
    assert scores.accuracy == [1.0, 0.0]
    assert scores.reward == [1.0, 0.0]


def test_columns_arrive_by_name(file: Path) -> None:
    assert call(file, "sees") == [1.0, 1.0]
    assert call(file, "narrow") == [1.0, 0.0]
    assert call(file, "optional") == [2.0, 2.0]


def test_none_is_kept_as_unscorable(file: Path) -> None:
    assert call(file, "some") == [1.0, None]


def test_completions_of_a_chat_are_messages(file: Path) -> None:
    problem = Problem([{"role": "user", "content": "hi"}], "")
    assert RewardFunction.load(f"{file}:chat", "reward")([problem], ["four"]) == [4.0]


def test_functions_of_a_package() -> None:
    function = RewardFunction.load("rlzoo.tasks.answers:final_answer", "reward")
    assert function.function("#### 3") == "3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"functions.py:raises raised ZeroDivisionError: .*zero"),
        ("short", "returned 1 values for 2 completions"),
        ("nan", "returned nan at position 1"),
        ("infinite", "returned inf at position 0"),
        ("text", "returned 'good' at position 1"),
        ("scalar", "returned float, not a list of 2 numbers"),
        ("nothing", "returned NoneType, not a list of 2 numbers"),
        ("lost", "takes 'target', which is no column; .*known: answer, completions, level, prompts"),
    ],
)
def test_broken_functions_are_named(file: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(file, name, ("12", ""))
    assert f":{name}" in str(caught.value)
    if name == "raises":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "write package.module:function"),
        (":length", "write package.module:function"),
        ("no_such_package.rewards:f", "importing no_such_package.rewards raised ModuleNotFoundError"),
        ("no/such/file.py:f", "no file no/such/file.py"),
        ("{file}:lenght", "no function 'lenght'.*did you mean 'length'"),
        ("{file}:not_a_function", "no function 'not_a_function'"),
    ],
)
def test_what_cannot_be_imported(file: Path, path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig(name="sort", reward=path.format(file=file)))


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(:")
    with pytest.raises(UserError, match="raised SyntaxError"):
        RewardFunction.load(f"{tmp_path}/bad.py:f", "reward")


def test_accuracy_has_to_be_known(file: Path) -> None:
    with pytest.raises(UserError, match=r"accuracy function .*:some returned None at position 1"):
        load_task(TaskConfig(name="sort", accuracy=f"{file}:some")).score(PROBLEMS, ["12", "?"])
