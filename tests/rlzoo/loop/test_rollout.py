"""Prompts are a pure function of (seed, step, round, place)."""

from __future__ import annotations

from rlzoo.rollout import draw
from rlzoo.tasks import Problem
from tests.rlzoo.loop.conftest import EvenTask


class Finite(EvenTask):
    kind = "finite"

    def size(self, split: str) -> int:
        return 10

    def problem(self, split: str, index: int) -> Problem:
        return Problem(f"{split}{index}", "")


def test_a_finite_task_is_walked_in_shuffled_epochs() -> None:
    task = Finite("finite")
    steps = [[p.prompt for p in draw(task, 0, step, 0, 4)] for step in range(5)]  # 20 prompts: two epochs of 10
    order = [prompt for step in steps for prompt in step]
    assert sorted(order[:10]) == sorted(order[10:]) == [f"train{i}" for i in range(10)]
    assert order[:10] != order[10:]
    assert steps[3] == [p.prompt for p in draw(task, 0, 3, 0, 4)]
    assert steps[0] != [p.prompt for p in draw(task, 1, 0, 0, 4)]


def test_refills_draw_other_prompts_than_the_first_round() -> None:
    task = EvenTask("even")
    rounds = [tuple(p.prompt for p in draw(task, 0, 0, round_, 6)) for round_ in range(3)]
    assert len(set(rounds)) == 3
    finite = [tuple(p.prompt for p in draw(Finite("finite"), 0, 0, round_, 6)) for round_ in (1, 2)]
    assert finite[0] != finite[1]
