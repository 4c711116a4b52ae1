"""What a report takes from run folders, finished or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.report.page import write_report
from rlzoo.report.read import (
    circumstances,
    command,
    configuration,
    read_study,
    rows_of_parts,
    settings,
)
from rlzoo.report.responses import MOMENTS, PROMPTS, TEXT_LIMIT, read_responses
from tests.report.folders import edit_json, write_run, write_study


def test_runs_are_read_in_the_order_of_the_zoo_then_by_seed(tmp_path: Path) -> None:
    for seed in (10, 9):
        write_run(tmp_path, "dapo", seed)
        write_run(tmp_path, "grpo", seed)
        write_run(tmp_path, "grpo[kl=none]", seed)
    study = read_study(tmp_path, ["step", "entropy", "kl_ref", "unheard_of"])
    names = [(run.algorithm, run.seed) for run in study.runs]
    assert names == [(name, seed) for name in ("grpo", "dapo", "grpo[kl=none]") for seed in (9, 10)]
    run = study.runs[0]
    assert run.train["entropy"].tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert np.isnan(run.train["kl_ref"]).all() and np.isnan(run.train["unheard_of"]).all()
    assert [record["step"] for record in run.evaluations] == [0, 2, 4]
    assert study.progress == 1 and len(study.ended) == 6


def test_runs_that_train_or_wait_are_part_of_it(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, steps=8)  # failed early: has no more to do
    edit_json(tmp_path / "grpo/seed0/summary.json", state="failed")
    write_run(tmp_path, "grpo", 1, (0.2, 0.3), state=None, steps=8)
    waiting = write_run(tmp_path, "dapo", 0, (0.2,), state=None, steps=8)
    (waiting / "metrics.jsonl").unlink()
    study = read_study(tmp_path, ["step"])
    assert [run.state for run in study.runs] == ["failed", "training", "waiting"]
    assert study.progress == pytest.approx((8 + 2 + 0) / 24)


def test_an_unfinished_last_line_is_left_for_the_next_time(tmp_path: Path) -> None:
    run = write_run(tmp_path, state=None)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "ste')
    assert read_study(tmp_path, ["step"]).runs[0].step == 4


def test_a_run_by_itself_has_a_report_too(tmp_path: Path) -> None:
    study = read_study(write_run(tmp_path, "gspo", 3, row="somewhere"), ["step"])
    assert [(run.algorithm, run.seed) for run in study.runs] == [("gspo", 3)]
    assert RunConfig.model_validate(configuration(study)).name == "gspo/seed3"


def test_what_is_no_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run in"):
        read_study(tmp_path, ["step"])
    write_run(tmp_path, "grpo", 0, task="add")
    write_run(tmp_path, "grpo", 1, task="sort")
    with pytest.raises(UserError, match=r"several tasks \(add, sort\)"):
        read_study(tmp_path, ["step"])


def test_the_configuration_repeats_the_runs(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, ("grpo", "dapo[kl=k3]"), seeds=2), ["step"])
    config = CompareConfig.model_validate(configuration(study))
    assert [run.name for run in config.runs()] == [f"{run.algorithm}/seed{run.seed}" for run in study.runs]
    stored = {run.algorithm: run.config for run in study.runs}
    assert all(run.stored() | {"seed": 1} == stored[run.objective.name] for run in config.runs())


def test_the_command_can_be_pasted(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path), ["step"])
    assert command(study) == "rlzoo compare grpo 'a b'"
    edit_json(tmp_path / "grpo/seed0/environment.json", command=["/y/rlzoo/__main__.py", "train"])
    assert command(read_study(tmp_path, ["step"])) == "python -m rlzoo train"


def test_settings_and_environments_that_differ_are_told(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=1)
    edit_json(tmp_path / "dapo/seed0/environment.json", torch="2.14.0")
    edit_json(tmp_path / "dapo/seed0/config.json", train={"steps": 4, "critic": "head"})
    study = read_study(tmp_path, ["step"])
    assert circumstances(study) == [("torch", ["2.13.0", "2.14.0"])]
    told = dict(settings(study))
    assert told["task.name"] == {'"add:medium"': ["grpo", "dapo"]}
    assert told["train.critic"] == {"null": ["grpo"], '"head"': ["dapo"]}


def test_rows_of_parts_say_every_field(tmp_path: Path) -> None:
    columns, rows = rows_of_parts(read_study(write_study(tmp_path, seeds=1), ["step"]))
    assert "value" not in columns and "surrogate" in columns
    assert rows["grpo"]["surrogate"] == "clip (low 0.2, high 0.2)"
    assert rows["dapo"]["kl"] == ""


def test_responses_are_of_one_seed_and_of_the_first_and_last_moment(tmp_path: Path) -> None:
    accuracies = [0.0] * 8 + [1.0]
    write_run(tmp_path, "grpo", 0, accuracies)  # a seed that the other has not
    write_run(tmp_path, "grpo", 1, accuracies, responses=["first", "x" * (TEXT_LIMIT + 7)])
    write_run(tmp_path, "dapo", 1, accuracies[:3], answer=["a", 1])
    seed, problems = read_responses(read_study(tmp_path, ["step"]))
    assert seed == 1 and len(problems) == 2 <= PROMPTS  # the answers differ, so these are two problems
    moments = problems[0].moments
    assert (min(moments), max(moments), len(moments)) == (0, 16, MOMENTS)
    assert moments[0]["grpo"].text == "first" and not moments[0]["grpo"].right
    assert moments[16]["grpo"].right and moments[16]["grpo"].more == 7
    assert problems[1].answer == '["a", 1]'


def test_prompts_of_messages_are_shown_as_text(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "40+2?"}]
    write_study(tmp_path, ("grpo", "dapo"), seeds=1, prompt=chat)
    _, problems = read_responses(read_study(tmp_path, ["step"]))
    assert [problem.prompt for problem in problems] == ["system: Be brief.\nuser: 40+2?"]
    assert set(problems[0].moments[0]) == {"grpo", "dapo"}
    assert "user: 40+2?" in write_report(tmp_path).read_text()
