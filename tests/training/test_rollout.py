"""Prompts are a pure function of (seed, step, round, place)."""

from __future__ import annotations

import pytest
import torch

from advantages import All, Mixed
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Problem
from rlzoo.training.rollout import check_prompts, draw
from tests.runs import EvenTask
from tests.training.test_credit import rollout_of


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


def test_rows_may_come_in_the_order_of_the_file() -> None:
    class Rows(EvenTask):
        def size(self, split: str) -> int:
            return 5

    drawn = [int(p.columns["index"]) for step in range(3) for p in draw(Rows("even"), 7, step, 0, 3, shuffle=False)]
    assert drawn == [0, 1, 2, 3, 4, 0, 1, 2, 3]


def test_refills_draw_other_prompts_than_the_first_round() -> None:
    task = EvenTask("even")
    rounds = [tuple(p.prompt for p in draw(task, 0, 0, round_, 6)) for round_ in range(3)]
    assert len(set(rounds)) == 3
    finite = [tuple(p.prompt for p in draw(Finite("finite"), 0, 0, round_, 6)) for round_ in (1, 2)]
    assert finite[0] != finite[1]


def test_prompts_at_hand_are_looked_through_before_training(backbone: Backbone) -> None:
    class Rows(Finite):
        at_hand = True

        def problem(self, split: str, index: int) -> Problem:
            return Problem("7" * (50 if (split, index) == ("train", 6) else 5), "")

    assert backbone.context_length == 64
    check_prompts(backbone, Rows("rows"), 14, backbone.context_length)
    with pytest.raises(UserError, match=r"'rows', train row 6: a prompt of 50 tokens with max_new_tokens 15 exceeds"):
        check_prompts(backbone, Rows("rows"), 15, backbone.context_length)
    Rows.at_hand = False  # problems that cost something to draw
    check_prompts(backbone, Rows("rows"), 15, backbone.context_length)


def test_selection_decides_on_what_can_be_learned_from() -> None:
    """Without the unknown reward, group 0 has right answers only; group 1 has nothing; group 2 is mixed."""
    nan = float("nan")
    rollout = rollout_of([[1.0, nan, 1.0], [nan, nan, nan], [0.0, nan, 1.0]], [[1, 2, 3]] * 3)
    assert rollout.accuracy_N.tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 1]
    assert Mixed()(rollout.usable_accuracy_PG).tolist() == [False, False, True]
    assert All()(rollout.usable_accuracy_PG).tolist() == [True, False, True]
    assert torch.equal(rollout.usable_accuracy_PG.isnan().flatten(), rollout.reward_N.isnan())
