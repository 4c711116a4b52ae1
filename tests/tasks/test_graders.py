"""Graders of data by name: what each of them counts as right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks import load_task
from rlzoo.tasks.graders import GRADERS, flexible, grader, gsm8k, installed, right, strict

SOLUTION = "7 * 10 = <<7*10=70>>70\n70 + 2 = <<70+2=72>>72\n#### 72"
"""An answer as GSM8K's files have it."""


@pytest.mark.parametrize(
    ("completion", "by_strict", "by_flexible", "by_gsm8k"),
    [
        ("#### 72", True, True, True),
        ("The answer is 72.", False, True, False),  # no mark
        (r"\boxed{72}", True, True, False),
        ("#### 72\nThat was 1 step.", True, False, True),  # the last number is 1
        ("#### 72.0", True, True, False),  # compared as strings
        ("#### $72", True, True, False),
        ("#### 71\n#### 72", True, True, True),
        ("#### 72" + " " * 300, True, True, False),  # not within the last 300 characters
        ("####72", True, True, False),  # no space
        ("#### 7,2", False, True, True),  # verl removes every comma; as a number, 7,2 is none
        ("", False, False, False),
    ],
)
def test_graders_of_a_number(completion: str, by_strict: bool, by_flexible: bool, by_gsm8k: bool) -> None:
    found = [grade(completion, SOLUTION) for grade in (strict, flexible, gsm8k)]
    assert found[0] is by_strict and found[2] is by_gsm8k
    if completion != "#### 7,2":
        assert found[1] is by_flexible


def test_flexible_is_strict_for_what_is_no_number() -> None:
    assert flexible("<answer>yes</answer> 5", "yes") and not flexible("yes 5", "yes")


def test_any_of_several_answers_is_right() -> None:
    assert right(strict, "13", ("12", "13")) == 1 and right(strict, "14", ("12", "13")) == 0


def test_unknown_graders_are_refused() -> None:
    with pytest.raises(UserError, match=r"here: unknown grader 'strikt'.*strict"):
        grader("strikt", "here")


@pytest.mark.skipif(not installed(), reason="needs the extra math")
@pytest.mark.parametrize(
    ("completion", "answer", "equal"),
    [(r"so \boxed{0.5}", r"\frac{1}{2}", True), ("it is $1/2$", "0.5", True), ("it is $1/3$", "0.5", False),
     (r"\boxed{(x+1)^2}", "x^2+2x+1", True), (r"<think>\boxed{3}</think> $4$", "3", False)],
)  # fmt: skip
def test_math_verify(completion: str, answer: str, equal: bool) -> None:
    assert GRADERS["math-verify"](completion, answer) is equal


@pytest.mark.skipif(installed(), reason="math-verify is here")
def test_math_verify_without_its_package_is_refused() -> None:
    with pytest.raises(UserError, match=r"pip install 'rlzoo\[math\]'"):
        grader("math-verify", "here")


def task_of(path: Path, rows: list[dict[str, object]], **settings: object) -> object:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(TaskConfig.model_validate({"name": f"jsonl:{path}", **settings}))


def test_a_task_is_graded_by_the_grader_it_names(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "answer": "72"} for i in range(20)]
    texts = ["#### 72", "The answer is 72.", "71"]
    for name, expected in (("strict", [1, 0, 0]), ("flexible", [1, 1, 0]), ("gsm8k", [1, 0, 0])):
        task = task_of(tmp_path / "a.jsonl", rows, grader=name)
        problems = [task.problem("test", 0)] * 3
        assert task.score(problems, texts).accuracy == expected
        reported = task.grades(problems, texts)
        assert reported["strict"] == [1, 0, 0] and reported["flexible"] == [1, 1, 0]
        assert ("math-verify" in reported) is installed()


def test_answers_may_be_lists_or_fields_of_a_struct(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "answer": ["12", 13], "reward_model": {"ground_truth": "7"}} for i in range(20)]
    task = task_of(tmp_path / "a.jsonl", rows)
    problem = task.problem("train", 0)
    assert problem.answer == '["12", "13"]' and problem.answers == ("12", "13")
    assert task.score([problem] * 3, ["12", "13", "14"]).accuracy == [1, 1, 0]
    field = task_of(tmp_path / "b.jsonl", rows, answer_column="reward_model.ground_truth")
    assert field.score([field.problem("train", 0)] * 2, ["7", "12"]).reward == [1, 0]


def test_prompts_may_be_fields_of_a_struct(tmp_path: Path) -> None:
    rows = [{"extra": {"question": f"{i}?"}, "answer": True} for i in range(20)]
    task = task_of(tmp_path / "a.jsonl", rows, prompt_column="extra.question")
    problem = task.problem("train", 0)
    assert str(problem.prompt).endswith("?") and task.grade(problem, "true") == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"style": "rule", "ground_truth": "7"},
            "line 3: the answer is .*name the field that holds it, such as COLUMN",
        ),
        ([], "line 3: the answer is '\\[\\]'; it has to be text, a number or a bool, or a list"),
        ([["7"]], "line 3: the answer is"),
    ],
)
def test_an_answer_that_cannot_be_compared_is_refused_by_its_row(tmp_path: Path, answer: object, message: str) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"{i}?", "answer": "1"} for i in range(5)]
    rows[2]["answer"] = answer
    with pytest.raises(UserError, match=message):
        task_of(tmp_path / "a.jsonl", rows)
    assert task_of(tmp_path / "a.jsonl", rows, accuracy="rlzoo.tasks.reasoning_gym:graded") is not None
    with pytest.raises(UserError, match=r"no column 'answer\.value'"):
        task_of(tmp_path / "a.jsonl", rows, answer_column="answer.value")


def test_grader_and_accuracy_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="grader and accuracy both decide"):
        task_of(
            tmp_path / "a.jsonl",
            [{"prompt": "1", "answer": "1"}] * 9,
            grader="strict",
            accuracy="rlzoo.tasks.reasoning_gym:graded",
        )
