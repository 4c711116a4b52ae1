"""Each procedural task on small cases worked by hand, and against brute force."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import permutations, product
from random import Random

import pytest

from rlzoo.tasks import Problem
from rlzoo.tasks.add import Add
from rlzoo.tasks.countdown import Countdown
from rlzoo.tasks.expression import evaluate
from rlzoo.tasks.needle import Needle
from rlzoo.tasks.parity import Parity
from rlzoo.tasks.sort import Sort


def test_sort() -> None:
    problem = Problem("S4721=", "1247")
    assert [Sort().grade(problem, c) for c in ("1247", "4217>1247", "1274", "7421", "124", "12477")] == [
        1,
        1,
        0,
        0,
        0,
        0,
    ]
    for index in range(100):
        problem = Sort("hard").problem("train", index)
        assert Counter(problem.answer) == Counter(str(problem.prompt)[1:-1])
        assert list(problem.answer) == sorted(problem.answer)


def test_add_scratchpad_spells_the_sum() -> None:
    problem = Problem("A347+586=", "933")
    assert Add().write(problem, "scratchpad", Random(0)) == "76=13,48=13,35=9>933"
    for index in range(200):
        problem = Add("hard").problem("train", index)
        a, b = str(problem.prompt)[1:-1].split("+")
        assert int(problem.answer) == int(a) + int(b)
        assert Add().grade(problem, Add().write(problem, "scratchpad", Random(index))) == 1


def test_add_guesses_are_shorter_and_worse_than_the_scratchpad() -> None:
    task, rng = Add("medium"), Random(0)
    problems = [task.problem("train", i) for i in range(500)]
    guesses = [task.write(p, "guess", rng) for p in problems]
    assert sum(task.score(problems, guesses).accuracy) / 500 < 0.4
    slips = [task.write(p, "slip", rng) for p in problems]
    assert sum(task.score(problems, slips).accuracy) / 500 < 0.1
    scratchpads = [task.write(p, "scratchpad", rng) for p in problems]
    assert min(map(len, scratchpads)) > 2 * max(map(len, guesses))


def test_parity_scratchpad() -> None:
    problem = Problem("P4721=", "0")
    assert Parity().write(problem, "scratchpad", Random(0)) == "40712110>0"
    assert [Parity().grade(problem, c) for c in ("0", "1", "4071>0", "40712110", "00")] == [1, 0, 1, 0, 0]
    problems = [Parity("hard").problem("train", i) for i in range(300)]
    assert all(int(p.answer) == sum(map(int, str(p.prompt)[1:-1])) % 2 for p in problems)
    assert 120 < sum(int(p.answer) for p in problems) < 180


@pytest.mark.parametrize(("level", "rate"), [("easy", 0.02), ("medium", 0.005), ("hard", 0.001)])
def test_needle_is_as_rare_as_its_level_says(level: str, rate: float) -> None:
    task, rng = Needle(level), Random(0)
    problem = task.problem("train", 0)
    assert problem.answer == "".join(sorted(str(problem.prompt)[1:-1], reverse=True))
    count = 20_000
    right = sum(task.grade(problem, task.demonstration(problem, rng)) for _ in range(count))
    assert abs(right / count - rate) < 4 * (rate / count) ** 0.5
    assert task.demonstration(problem, Random(1), clean=True) == task.demonstration(problem, Random(1))


def test_countdown_verdicts() -> None:
    problem = Problem("C257:17=", "2*5+7", {"numbers": [2, 5, 7], "target": 17, "level": "medium"})
    right = ["2*5+7", "7+5*2", "(2*5)+7", "2+5+7=14>5*2+7", "2*5+7=17", " 2 * 5 + 7 = 17 "]
    wrong = ["17", "2+5+7", "5+5+7", "2*5+7=14", "2*5+7+0", "2*5", "2*5+7=17=17", "7--10", "2*5+7>", "25-8", "2*5+7)"]
    assert [Countdown().grade(problem, c) for c in right] == [1] * len(right)
    assert [Countdown().grade(problem, c) for c in wrong] == [0] * len(wrong)


def test_countdown_has_a_solution_at_every_level_and_often_many() -> None:
    many = 0
    for level in ("easy", "medium", "hard"):
        task = Countdown(level)
        for index in range(40):
            problem = task.problem("train", index)
            numbers = [str(n) for n in problem.columns["numbers"]]
            expressions = [
                form
                for (x, y, z), (f, g) in product(permutations(numbers), product("+-*/", repeat=2))
                for form in (f"{x}{f}{y}{g}{z}", f"({x}{f}{y}){g}{z}", f"{x}{f}({y}{g}{z})")
            ]
            right = {e for e in expressions if task.grade(problem, e)}
            assert problem.answer in right
            many += len(right) > 1
    assert many > 100


@pytest.mark.parametrize(
    ("expression", "value", "numbers"),
    [
        ("1+2*3", Fraction(7), [1, 2, 3]),
        ("(1+2)*3", Fraction(9), [1, 2, 3]),
        ("1/3", Fraction(1, 3), [1, 3]),
        ("8/9/3", Fraction(8, 27), [8, 9, 3]),
        ("12-7", Fraction(5), [12, 7]),
    ],
)
def test_expression(expression: str, value: Fraction, numbers: list[int]) -> None:
    assert evaluate(expression) == (value, numbers)


@pytest.mark.parametrize(
    "text",
    ["", "1/0", "2**9", "9//2", "-1+2", "+1", "1_0+1", "0x1", "07+1", "1.5*2", "a+1", "__import__('os')", "1+", "(1",
     "1 2", "()", "1(2)", "((((" * 30, "9" * 65, "1+٣", "1\n+1", "(1,2)", "1#+1"],
)  # fmt: skip
def test_what_is_not_an_expression(text: str) -> None:
    assert evaluate(text) is None
