"""A comparison over several tasks: settings, folders, the joint plan, resuming, and verdicts that agree everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import validate
from rlzoo.config.run import RunConfig
from rlzoo.config.sources import put_over, settings
from rlzoo.config.task import TaskConfig, split_tasks, task_folder
from rlzoo.config.trust import code_in
from rlzoo.errors import UserError
from rlzoo.experiments.ablate import ablate
from rlzoo.experiments.ablation_plan import plan_of
from rlzoo.experiments.compare import compare, read_comparison
from rlzoo.experiments.tasks import compare_tasks, holds_tasks, read_tasks
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import register_task
from tests.experiments.test_compare import comparison
from tests.runs import EvenTask

MakeConfig = Callable[..., RunConfig]
BOTH = ["even", "odd"]


class OddTask(EvenTask):
    """Right is a completion whose first character has an odd code."""

    kind = "odd"

    def grade(self, problem: Any, completion: str) -> float:
        return float(completion[:1] != "" and ord(completion[0]) % 2 == 1)


register_task(OddTask)


def over_tasks(make_config: MakeConfig, **changes: Any) -> CompareConfig:
    return validate(
        CompareConfig, comparison(make_config).model_dump(mode="json") | {"task": BOTH} | changes, "these settings"
    )


@pytest.mark.parametrize(
    ("text", "tasks"),
    [
        ("add:medium,sort:hard", ["add:medium", "sort:hard"]),
        ("add, sort", ["add", "sort"]),
        ("add", "add"),
        ("jsonl:a,b.jsonl", "jsonl:a,b.jsonl"),
        ("jsonl:a.jsonl,add:hard", ["jsonl:a.jsonl", "add:hard"]),
        ("hf:openai/gsm8k,add", ["hf:openai/gsm8k", "add"]),
    ],
)
def test_a_comma_divides_tasks_and_not_paths(text: str, tasks: str | list[str]) -> None:
    assert split_tasks(text) == tasks


def test_tasks_in_a_file_as_a_list_of_names_or_tables(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    for words in (
        'task = ["add:medium", "sort"]',
        'tasks = ["add:medium", "sort"]',
        '[[task]]\nname = "add"\nlevel = "medium"\n[[task]]\nname = "sort"',
        '[[tasks]]\nname = "add"\nlevel = "medium"\n[[tasks]]\nname = "sort"',
    ):
        file.write_text(f'objectives = ["grpo", "gspo"]\n{words}\n')
        made = settings(CompareConfig, file, [], {})
        assert [task.label for task in made.tasks] == ["add:medium", "sort"] and made.task == made.tasks[0]
        assert {name: (c.task.label, c.tasks) for name, c in made.by_task().items()} == {
            "add:medium": ("add:medium", ()),
            "sort": ("sort", ()),
        }
        assert validate(CompareConfig, made.model_dump(mode="json"), "") == made  # as comparison.json stores it
    one = settings(CompareConfig, file, [], {"task": "countdown"})  # an option takes the place of the file's tasks
    assert one.task.name == "countdown" and one.tasks == () and list(one.by_task()) == ["countdown"]
    file.write_text('objectives = ["grpo"]\ntask = ["sort"]\n')
    assert settings(CompareConfig, file, [], {}).tasks == ()
    assert put_over({"tasks": ["a"], "seeds": 2}, {"task": None}) == {"tasks": ["a"], "seeds": 2}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"task": ["add", "add"]}, "tasks must each be named once: add, add"),
        ({"task": ["add"], "tasks": ["sort"]}, "task and tasks are both lists"),
        ({"task": "sort", "tasks": ["add", "sort"]}, r"begins with 'add': name one"),
        ({"task": ["add", {"name": "sort", "levl": "hard"}]}, r"tasks.1.levl: no such setting; did you mean 'level'"),
    ],
)
def test_tasks_that_cannot_be_used(table: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        validate(CompareConfig, {"objectives": ["grpo", "gspo"]} | table, "these settings")


def test_code_of_every_task_needs_trust() -> None:
    tasks = [{"name": "add"}, {"name": "sort", "reward": "mine.py:reward"}]
    made = CompareConfig.model_validate({"objectives": ["grpo"], "tasks": tasks})
    assert list(code_in(made)) == [("tasks.1.reward", "mine.py:reward")]


def test_a_folder_s_name_has_nothing_that_file_systems_refuse() -> None:
    assert task_folder("add:medium") == "add-medium" and task_folder("jsonl:../a b.jsonl") == "jsonl-..-a-b.jsonl"
    assert TaskConfig(name="add", level="hard").label == "add:hard" and len(task_folder("x" * 999)) == 200


def test_two_tasks_from_start_to_verdict_and_on(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    config, told = over_tasks(make_config), []
    made = compare_tasks(config, tmp_path, backbone=backbone, on_task=lambda one: told.append(one.folder.name))
    assert told == ["even", "odd"] and list(made.comparisons) == BOTH
    runs = {(one["task"], one["name"]) for one in made.summaries}
    assert runs == {(task, f"{row}/seed{s}") for task in BOTH for row in ("reinforce", "grpo") for s in (0, 1)}
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["plan"]["tasks"] == BOTH and plan["plan"]["level"] == 0.05
    assert plan["analyses"][0]["ended"] == 0 and plan["analyses"][0]["judged"]
    for task in BOTH:
        alone = json.loads((tmp_path / task / "plan.json").read_text())["plan"]
        assert (alone["task"], alone["tasks"], alone["part_of"], alone["level"]) == (task, [], 2, 0.025)
        assert read_comparison(tmp_path / task).as_dict() == made.comparisons[task].as_dict()
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(made.as_dict()))
    assert read_tasks(tmp_path).as_dict() == made.as_dict() and holds_tasks(tmp_path)
    assert not holds_tasks(tmp_path / "even")
    for row in made.rows:
        of_tasks = [next(r for r in one.rows if r.objective == row.row).after for one in made.comparisons.values()]
        assert row.mean.mean == pytest.approx(sum(one.mean for one in of_tasks if one) / 2)
    assert made.judgement.refusal is not None and made.judgement.refusal.name == "too few problems"

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.jsonl")}
    with pytest.raises(UserError, match="already holds a comparison"):
        compare_tasks(config, tmp_path, backbone=backbone)
    more = compare_tasks(over_tasks(make_config, seeds=3), tmp_path, resume=True, backbone=backbone)
    assert len(more.summaries) == 12 and all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert more.declared is not None and more.declared.look == 2
    assert more.declared.analyses[-1]["kind"] == "more seeds" and more.declared.analyses[-1]["ended"] == 8


def test_an_interrupted_comparison_over_tasks_is_read_and_goes_on(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    config = over_tasks(make_config)
    with pytest.raises(KeyboardInterrupt):
        compare_tasks(config, tmp_path, backbone=backbone, on_task=stop)
    so_far = read_tasks(tmp_path)
    assert list(so_far.comparisons) == ["even"] and so_far.rows == [] and so_far.judgement.standings == ()
    assert so_far.judgement.refusal is not None and "4 of its runs have not ended" in so_far.judgement.refusal.reason
    assert so_far.declared is not None and so_far.declared.analyses[-1].get("judged") is None
    whole = compare_tasks(config, tmp_path, resume=True, backbone=backbone)
    assert len(whole.summaries) == 8 and whole.rows


def test_one_folder_is_on_one_task_or_on_several(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    one, several = comparison(make_config), over_tasks(make_config)
    (tmp_path / "comparison.json").write_text(json.dumps(several.model_dump(mode="json")))
    with pytest.raises(UserError, match="holds a comparison over several tasks, and this one is on one task"):
        compare(one, tmp_path, resume=True, backbone=backbone)
    with pytest.raises(UserError, match="over 2 tasks: name the folder of one in it"):
        read_comparison(tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps(one.model_dump(mode="json")))
    with pytest.raises(UserError, match="holds a comparison on one task, and this one is over several tasks"):
        compare_tasks(several, tmp_path, resume=True, backbone=backbone)
    with pytest.raises(UserError, match="holds a comparison on one task"):
        read_tasks(tmp_path)
    with pytest.raises(UserError, match="no comparison"):
        read_tasks(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="needs two tasks or more"):
        compare_tasks(one, tmp_path / "new", backbone=backbone)
    with pytest.raises(UserError, match="an ablation is on one task"):
        ablate(plan_of("dapo"), several, tmp_path / "new")
