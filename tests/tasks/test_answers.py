"""The final answer of a completion on real data, and when two of them are the same."""

from __future__ import annotations

import time

import pytest

from rlzoo.tasks.answers import final_answer, last_number, same
from rlzoo.tasks.graders import flexible, gsm8k, strict


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 72 \n", "72"),
        (r"so \boxed{72}.", "72"),
        (r"\boxed{1} no, \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        ("9 * 8 = <<9*8=72>>72\n#### 72", "72"),
        ("#### 71\nwait\n####72 \nthat is it", "72"),
        ("<answer>\n72\n</answer>", "72"),
        (r"<answer>1</answer> rather \boxed{2}", "2"),
        (r"\boxed{1} rather <answer>2</answer>", "2"),
        (r"\boxed{unclosed", "unclosed"),
        ("", ""),
        (r"\fbox{5}", "5"),
        (r"so \boxed 5 it is", "5"),
        (r"\boxed { 5 }", "5"),
        (r"\boxedness is no box", r"\boxedness is no box"),
        ("in <answer> tags: <answer>5</answer>", "5"),
        ("<Answer>5</ANSWER>", "5"),
        ("<answer>5</answer>\n#### Explanation\nit was easy", "5"),
        ("#### 5\n#### Explanation", "5"),
        ("#### yes\n#### no", "no"),
        ("<think>9?</think> 5", "5"),
        (r"<think>\boxed{5}</think> The answer is 6", "The answer is 6"),
        ("the prompt opened it 5</think>\n#### 6", "6"),
        (r"<think>never closed \boxed{5}", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("72", "72"), ("72.0", "72"), ("#### 1,072", "1072"), ("$5$", "5"), ("yes.", "yes"), ("1e3", "1000"),
     (r"\boxed{72}", "think\n#### 72"), ("-3", "-3.00")],
)  # fmt: skip
def test_same(completion: str, answer: str) -> None:
    assert strict(completion, answer)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("72", "7"), ("the answer is 72", "72"), ("", "72"), ("", ""), ("nan", "1"), ("inf", "1"), ("1,2", "12"),
     ("Yes", "yes"), (r"\boxed{72} \boxed{73}", "72")],
)  # fmt: skip
def test_different(completion: str, answer: str) -> None:
    assert not strict(completion, answer)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("1{,}000", "1000"), (r"1\,000", "1000"), (r"1\!000", "1000"), (r"\$5", "5"), (r"50\%", "50%"), ("\u22125", "-5"),
     (r"\text{A}", "A"), ("(A)", "A"), ("**5**", "5"), ("10, 20", "10,20"), (r"\frac{ 1 }{2}", r"\frac{1}{2}"),
     ("True", "true"), ("false", "False"), (r"\left(1, 2\right)", "(1,2)"), ("`x`", "x"), ("- 5", "-5")],
)  # fmt: skip
def test_spellings_of_one_answer(found: str, wanted: str) -> None:
    assert same(found, wanted) and same(wanted, found)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("50", "50%"), ("1 2", "12"), ("a", "A"), ("(1,2)", "1,2"), ("(A)", "B"), ("1{,}2", "12"), ("5", "-5"),
     ("x y", "xy"), ("9" * 401, "9" * 401 + ".0")],
)  # fmt: skip
def test_other_answers(found: str, wanted: str) -> None:
    assert not same(found, wanted)


@pytest.mark.parametrize(
    ("text", "number"),
    [("7 + 12 = 19.", "19"), ("it is 1,234, so", "1,234"), ("$5", "5"), ("-$3.50!", "-3.50"), ("\u22124", "-4"),
     ("none", None), ("<think>7</think> none", None), ("2, 3", "3"), ("1{,}000", "1,000"), ("7-3", "-3"), ("a1.", "1")],
)  # fmt: skip
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit",
    ["<answer>", "</answer>", "<answer></answer>", r"\boxed{", r"\boxed ", r"\boxed", "#### ", "####", "<think>", "}",
     "1,", "1", "-", ".", "{", "(", r"\text{", r"\text", "* ", "$", " ", "1 ", "(1) "],
)  # fmt: skip
def test_any_response_is_graded_in_linear_time(unit: str) -> None:
    """A megabyte of anything takes far below a second; what is quadratic takes minutes."""
    text = unit * (1_000_000 // len(unit))
    started = time.perf_counter()
    for grade in (strict, flexible, gsm8k):
        grade(text, "5"), grade(r"\boxed{" + text + "}", "5")
    assert time.perf_counter() - started < 15
