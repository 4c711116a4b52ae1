"""What every procedural task promises, checked for each of them at each level."""

from __future__ import annotations

from random import Random

import pytest

from rlzoo.errors import UserError
from rlzoo.tasks import ProceduralTask, load_task, task_kinds
from rlzoo.tasks.procedural import final_part, split_of
from rlzoo.warmstart.report import MAX_NEW_TOKENS

KINDS = sorted(name for name, task in task_kinds().items() if issubclass(task, ProceduralTask))
LABELS = [f"{kind}:{level}" for kind in KINDS for level in ("easy", "medium", "hard", "mixed")]


@pytest.fixture(params=LABELS)
def task(request: pytest.FixtureRequest) -> ProceduralTask:
    task = load_task(request.param)
    assert isinstance(task, ProceduralTask)
    return task


def test_there_are_several_tasks() -> None:
    assert {"add", "countdown", "needle", "parity", "sort"} <= set(KINDS)


def test_a_problem_is_a_pure_function_of_split_and_index(task: ProceduralTask) -> None:
    other = load_task(task.label)
    backwards = [other.problem("train", i) for i in reversed(range(50))]
    assert [task.problem("train", i) for i in range(50)] == backwards[::-1]
    assert len({task.problem("train", i).prompt for i in range(50)}) > 40


def test_its_own_answer_is_right_and_another_is_wrong(task: ProceduralTask) -> None:
    problems = [task.problem("test", i) for i in range(100)]
    scores = task.score(problems, [p.answer for p in problems])
    assert scores.accuracy == [1.0] * 100
    assert scores.reward == scores.accuracy
    thought = task.score(problems, [f"0>1>{p.answer} " for p in problems])
    assert thought.accuracy == [1.0] * 100
    for spoilt in ("", "{}x", "{}>", "{}>{}0", "1{}"):
        wrong = task.score(problems, [spoilt.format(p.answer, p.answer) for p in problems])
        assert sum(wrong.accuracy) == 0, spoilt


@pytest.mark.parametrize("kind", KINDS)
def test_no_test_problem_is_a_train_problem_at_any_level(kind: str) -> None:
    seen: dict[str, set[str]] = {"train": set(), "test": set()}
    prompts: dict[str, set[object]] = {"train": set(), "test": set()}
    for level in ("easy", "medium", "hard", "mixed"):
        task = load_task(f"{kind}:{level}")
        assert isinstance(task, ProceduralTask)
        for split in ("train", "test"):
            for index in range(1000 if split == "train" else 300):
                problem = task.problem(split, index)
                assert split_of(kind, task.key(problem)) == split
                seen[split].add(task.key(problem))
                prompts[split].add(problem.prompt)
    assert not seen["train"] & seen["test"]
    assert not prompts["train"] & prompts["test"]
    assert len(prompts["test"]) > 300


def test_one_problem_in_ten_is_a_test_problem() -> None:
    splits = [split_of("sort", str(i)) for i in range(10_000)]
    assert 900 < splits.count("test") < 1100


def test_demonstrations_are_short_and_drawn_by_their_shares(task: ProceduralTask) -> None:
    problem = task.problem("train", 0)
    styles = task.styles(problem)
    assert sum(styles.values()) == pytest.approx(1)
    assert task.clean_styles <= styles.keys()
    for index in range(200):
        problem = task.problem("train", index)
        for style in styles:
            written = task.write(problem, style, Random(index))
            assert 0 < len(written) < MAX_NEW_TOKENS  # one token per character, and the end token
    assert task.demonstration(problem, Random(5)) == task.demonstration(problem, Random(5))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"needle"}))
@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
def test_clean_demonstrations_are_right_and_the_mixture_is_right_in_part(kind: str, level: str) -> None:
    task = load_task(f"{kind}:{level}")
    assert isinstance(task, ProceduralTask)
    problems = [task.problem("train", i) for i in range(600)]
    rng = Random(0)
    clean = task.score(problems, [task.demonstration(p, rng, clean=True) for p in problems]).accuracy
    assert clean == [1.0] * 600
    mixture = task.score(problems, [task.demonstration(p, rng) for p in problems]).accuracy
    assert 0.2 < sum(mixture) / 600 < 0.85


def test_mixed_draws_every_level() -> None:
    levels = [load_task("add:mixed").problem("train", i).columns["level"] for i in range(300)]
    assert all(70 < levels.count(level) < 130 for level in ("easy", "medium", "hard"))


def test_a_problem_is_the_same_on_every_machine() -> None:
    first = {kind: load_task(kind).problem("test", 7).prompt for kind in KINDS}
    assert first == GOLDEN


GOLDEN = {
    "add": "A767+898=",
    "countdown": "C179:15=",
    "needle": "N91064=",
    "parity": "P77462=",
    "sort": "S56205=",
}


def test_unknown_level_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown level 'hrad'.*did you mean 'hard'"):
        load_task("sort:hrad")


def test_final_part() -> None:
    assert final_part("1>2> 3 ") == "3"
    assert final_part("3") == "3"
