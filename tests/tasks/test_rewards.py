"""Reward functions by import path: how they are called, and what is said when they break the contract."""

from __future__ import annotations

import asyncio
import json
import sys
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


def written(tmp_path: Path, text: str, name: str = "rw.py") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_a_file_with_a_dataclass_of_late_annotations_is_imported(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass C:\n"
        "    name: str | None = None\n"
        "def f(completions, **_): return [1.0 if C().name is None else 0.0] * len(completions)\n"
    )
    assert call(written(tmp_path, text, "json.py"), "f", ("12", "")) == [1.0, 1.0]
    import json

    assert json.dumps([]) == "[]"  # the file of that name has not taken its place


def test_a_file_imports_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, "def g(c): return 0.5\n", "near_by.py")
    file = written(tmp_path, "from near_by import g\ndef f(completions, **_): return [g(c) for c in completions]\n")
    assert call(file, "f", ("12", "")) == [0.5, 0.5]


def test_an_async_function_is_awaited_also_where_a_loop_runs(tmp_path: Path) -> None:
    text = (
        "import asyncio\nasync def one(c):\n    await asyncio.sleep(0)\n    return float(len(c))\n"
        "async def f(completions, **_):\n    return await asyncio.gather(*(one(c) for c in completions))\n"
    )
    file = written(tmp_path, text)
    assert call(file, "f", ("12", "")) == [2.0, 0.0]

    async def trainer() -> list[float | None]:
        return call(file, "f", ("12", ""))

    assert asyncio.run(trainer()) == [2.0, 0.0]


def test_what_a_function_prints_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(
        tmp_path, "print('on import')\ndef f(completions, **_):\n    print('hi')\n    return [0] * len(completions)\n"
    )
    call(file, "f", ("12", ""))
    out, err = capsys.readouterr()
    assert out == "" and "on import\nhi\n" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "return [1 / 0 for c in completions]",
            r"ZeroDivisionError: division by zero \(.*rw\.py, line 2: return \[",
        ),
        ("raise SystemExit(0)", r"raised SystemExit: exit status 0 \(.*rw\.py, line 2"),
        ("exec('exit(3)')", r"raised SystemExit: exit status 3 \(.*rw\.py, line 2"),
        ("return [1e39] * len(completions)", r"returned 1e\+39 at position 0: float32 ends at 3\.4e\+38"),
        ("return [10 ** 400] * len(completions)", "at position 0: not a number"),
    ],
)
def test_what_a_function_does_wrong_is_said_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    file = written(tmp_path, f"def f(completions, **_):\n    {line}\n")
    with pytest.raises(UserError, match=message):
        call(file, "f", ("12", ""))


@pytest.mark.parametrize("value", [7.5, -0.1])
def test_an_accuracy_is_a_share(tmp_path: Path, value: float) -> None:
    file = written(tmp_path, f"def f(completions, **_): return [{value}] * len(completions)\n")
    with pytest.raises(UserError, match="accuracy is a share of 1"):
        load_task(TaskConfig(name="sort", accuracy=f"{file}:f")).score(PROBLEMS, ["12", "?"])


def test_an_exception_names_the_row_and_the_response_that_caused_it(tmp_path: Path) -> None:
    """Five rows; the function fails for the answer of the fourth: halves 0-1, 2-4, then 2, 3-4, then 3."""
    rows = [{"prompt": f"{i} + 1?", "answer": str(i + 1)} for i in range(5)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = written(
        tmp_path,
        "calls = []\n"
        "def f(completions, answer):\n"
        "    calls.append(len(answer))\n"
        "    return [1 / (int(a) - 4) for a in answer]\n",
    )
    paths = {"name": f"jsonl:{tmp_path}/train.jsonl", "test_path": f"{tmp_path}/train.jsonl"}
    task = load_task(TaskConfig(**paths, reward=f"{file}:f"))
    problems = [task.problem("train", i) for i in range(5)]
    with pytest.raises(UserError, match=r"for train row 3 prompt '3 \+ 1\?' and its response 'd'") as caught:
        task.score(problems, list("abcde"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert sys.modules[str(file)].calls == [5, 2, 3, 1, 2, 1]


def test_a_bad_value_names_its_row(file: Path) -> None:
    with pytest.raises(
        UserError, match=r"nan at position 1: .*; that is the prompt 'S21=' and its response 'x{60}'\.\.\."
    ):
        call(file, "nan", ("12", "x" * 100))


def test_an_exception_of_the_whole_batch_blames_no_row(tmp_path: Path) -> None:
    file = written(tmp_path, "def f(completions):\n    assert len(completions) < 2, 'too many'\n    return [0.0]\n")
    with pytest.raises(UserError, match=r"too many .* for 2 responses together and for neither half"):
        call(file, "f")
