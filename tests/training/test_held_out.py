"""Training, validation and test are disjoint; problems are distinct; records have the outcome of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlzoo.config.run import EvaluationSettings, RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.outcomes import unpack
from rlzoo.store.run_folder import RunFolder
from rlzoo.tasks import Problem, load_task
from rlzoo.training.evaluate import evaluate_policy
from rlzoo.training.held_out import held_out
from rlzoo.training.launch import train
from tests.runs import EvenTask


@pytest.mark.parametrize("name", ["add:easy", "sort:easy", "sort:medium", "countdown:medium", "parity:easy"])
def test_no_two_splits_share_a_problem(name: str) -> None:
    task = load_task(name)
    validation, test = held_out(task, "validation", 200), held_out(task, "test", 400)
    trained_on = [task.problem("train", i) for i in range(400)]
    identities = [{task.identity(problem) for problem in some} for some in (validation, test, trained_on)]
    assert not (identities[0] & identities[1] or identities[0] & identities[2] or identities[1] & identities[2])
    for problems in (validation, test):
        assert problems and len({str(problem.prompt) for problem in problems}) == len(problems)
    assert held_out(task, "test", 10) == test[:10]


class Few(EvenTask):
    """Sixteen rows with eight different prompts."""

    def __init__(self, rows: int = 16) -> None:
        super().__init__("few")
        self.rows = rows

    def size(self, split: str) -> int | None:
        return self.rows if split == "test" else None

    def problem(self, split: str, index: int) -> Problem:
        return Problem(f"{split[0]}{index % 8}=", "")


def test_a_small_split_is_divided_whole_and_without_duplicates() -> None:
    prompts = [{p.prompt for p in held_out(Few(), split, 100)} for split in ("validation", "test")]
    assert [len(some) for some in prompts] == [2, 6] and not prompts[0] & prompts[1]


def test_all_is_every_row_of_the_test_split_at_every_evaluation(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    """Sixteen rows, eight different prompts: 16 outcomes each time, and no other evaluation at the ends."""
    every = held_out(Few(), "test", "all")
    assert len(every) == 16 and every == held_out(Few(), "validation", "all")
    config = make_config(evaluation={"every": 2, "prompts": "all"})
    summary = train(config, tmp_path, backbone=backbone, task=Few())
    records = [r for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] != "train"]
    assert [(r["kind"], r["step"]) for r in records] == [("eval", 0), ("eval", 2), ("eval", 3)]
    assert all(len(unpack(record["outcomes"])) == 16 for record in records)
    assert summary["after"]["accuracy"] == records[-1]["accuracy"]


def test_all_of_an_endless_task_or_beside_other_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"task 'sort' draws its held-out problems without end: give a number"):
        held_out(load_task("sort:easy"), "test", "all")
    with pytest.raises(ValueError, match="leave out final_prompts"):
        EvaluationSettings(prompts="all", final_prompts=8)
    with pytest.raises(ValueError, match="prompts"):
        EvaluationSettings.model_validate({"prompts": "most"})


def test_one_held_out_problem_is_for_validation(make_config: Callable[..., RunConfig], backbone: Backbone) -> None:
    assert len(held_out(Few(1), "validation", 5)) == 1 and held_out(Few(1), "test", 5) == []
    with pytest.raises(UserError, match=r"too few different problems are held out .*task.test_fraction"):
        evaluate_policy(backbone, Few(1), None, EvaluationSettings(prompts=3), max_new_tokens=6, temperature=1.0)


def test_a_run_is_tested_at_both_ends_and_keeps_the_outcome_of_every_problem(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    config = make_config(evaluation={"every": 2, "prompts": 8, "final_prompts": 40, "samples": 2})
    summary = train(config, tmp_path, backbone=backbone)
    records = [r for r in RunFolder.open(tmp_path).read_metrics() if r["kind"] != "train"]
    assert [(r["kind"], r["step"]) for r in records] == [
        *(("eval", 0), ("test", 0), ("eval", 2)),
        *(("eval", 3), ("test", 3)),
    ]
    for record in records:
        outcomes = unpack(record["outcomes"])
        assert outcomes is not None and len(outcomes) == (8 if record["kind"] == "eval" else 40)
        assert np.mean(outcomes) == pytest.approx(record["accuracy"], abs=1e-6)
        assert set(outcomes.tolist()) <= {0.0, 0.5, 1.0}  # two samples of each problem
    assert summary["before"]["accuracy"] == records[1]["accuracy"]
    assert summary["after"]["accuracy"] == records[-1]["accuracy"]


def test_the_last_evaluation_has_eight_times_the_problems() -> None:
    assert EvaluationSettings().at_the_ends().prompts == 1024
    assert EvaluationSettings(prompts=10, final_prompts=3).at_the_ends().prompts == 3
    with pytest.raises(ValueError, match="final_prompts is 0"):
        EvaluationSettings(final_prompts=0, final_samples=4)
