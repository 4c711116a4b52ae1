"""Tasks of reasoning-gym, an optional extra."""

from __future__ import annotations

import sys

import pytest

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError
from rlzoo.tasks import load_task
from rlzoo.tasks.reasoning_gym import FIRST_SEED, SIZE


@pytest.fixture
def gym() -> None:
    pytest.importorskip("reasoning_gym")


@pytest.mark.usefixtures("gym")
def test_problems_and_verdicts() -> None:
    task = load_task(TaskConfig(name="reasoning-gym:chain_sum", options={"min_terms": 2, "max_terms": 2}))
    problem = task.problem("train", 3)
    assert problem == task.problem("train", 3)
    assert problem != task.problem("test", 3)
    assert eval(problem.columns["metadata"]["expression"]) == int(problem.answer)
    completions = [problem.answer, f"<answer> {problem.answer} </answer>", f"{problem.answer}0"]
    assert task.score([problem] * 3, completions).accuracy == [1, 1, 0]
    assert task.size("train") == SIZE


@pytest.mark.usefixtures("gym")
def test_a_part_of_a_point_is_not_accuracy_but_can_be_the_reward() -> None:
    task = load_task(TaskConfig(name="reasoning-gym:countdown", reward="rlzoo.tasks.reasoning_gym:graded", chat=True))
    problem = task.problem("train", 0)
    assert problem.prompt == [{"role": "user", "content": problem.columns["question"]}]
    scores = task.score([problem, problem], [problem.answer, "1+1"])
    assert scores.accuracy == [1.0, 0.0]
    assert scores.reward[0] == 1.0
    assert scores.reward[1] is not None and 0 < scores.reward[1] < 0.1


def test_the_item_seeds_of_the_splits_do_not_meet() -> None:
    assert FIRST_SEED["train"] + SIZE < FIRST_SEED["test"]


@pytest.mark.usefixtures("gym")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "reasoning-gym:chainsum"}, "unknown data set 'chainsum'; did you mean 'chain_sum'"),
        ({"name": "reasoning-gym:chain_sum", "options": {"terms": 2}}, "rejects options.*terms"),
        ({"name": "reasoning-gym:chain_sum", "options": {"min_terms": -2}}, "min_terms must be positive"),
        ({"name": "reasoning-gym:chain_sum", "options": {"seed": 1}}, "options.seed is set by the splits"),
    ],
)
def test_clear_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_task(TaskConfig.model_validate(settings))


def test_how_to_install_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install 'rlzoo\[reasoning-gym\]'"):
        load_task("reasoning-gym:chain_sum")
