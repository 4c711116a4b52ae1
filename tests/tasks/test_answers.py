"""The final answer of a completion on real data, and when two of them are the same."""

from __future__ import annotations

import pytest

from rlzoo.tasks.answers import final_answer, matches


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
    assert matches(completion, answer)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [("72", "7"), ("the answer is 72", "72"), ("", "72"), ("", ""), ("nan", "1"), ("inf", "1"), ("1,2", "12"),
     ("Yes", "yes"), (r"\boxed{72} \boxed{73}", "72")],
)  # fmt: skip
def test_different(completion: str, answer: str) -> None:
    assert not matches(completion, answer)
