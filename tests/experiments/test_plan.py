"""plan.json: what was declared when, what was changed after, and how often the data were judged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.config.run import RunConfig
from rlzoo.experiments.compare import compare, read_comparison
from rlzoo.experiments.plan import declare, judged, read_plan
from rlzoo.experiments.tune import search_runs
from rlzoo.model.backbone import Backbone
from rlzoo.report.page import write_report
from tests.report.folders import write_plan, write_run, write_study


def plan(**changes: Any) -> Plan:
    table = {"objectives": ["grpo", "gspo", "dapo"], "seeds": 4, "task": "add:medium"}
    return Plan.of(CompareConfig.model_validate(table | changes))


def test_a_plan_says_what_is_run_and_how_it_is_judged() -> None:
    made = plan(controls=["frozen"], train={"steps": 24})
    assert (made.rows, made.controls, made.seeds) == (("grpo", "gspo", "dapo"), ("grpo+frozen",), (0, 1, 2, 3))
    assert (made.task, made.problems, made.endpoint, made.margin) == ("add:medium", 1024, "steps", 0.02)
    assert made.measure == "held-out accuracy after 24 steps" and made.rate == "at lr 0.0007 for all"
    assert made.questions() == [("grpo", "gspo"), ("grpo", "dapo"), ("gspo", "dapo")]
    assert plan(family="reference").questions() == [("gspo", "grpo"), ("dapo", "grpo")]
    at_budget = plan(train={"budget": "tokens=200k"})
    assert at_budget.endpoint == "tokens" and at_budget.measure == "held-out accuracy at 200000 sampled tokens"
    assert plan(endpoint="steps").unlike_costs and not made.unlike_costs
    tuned = plan(tuned={"grpo": 1e-3, "gspo": 7e-4, "dapo": 7e-4})
    assert tuned.rate == "at each row's best lr"


def test_the_defaults_suit_the_shipped_base_and_a_thousand_problems_decide() -> None:
    """At 2e-3, once the default, some runs fall back. Of 6 pairs, 128 problems resolve 1.3 and 1,024 resolve 2.8."""
    config = CompareConfig.model_validate({"objectives": ["grpo", "gspo"]})
    assert config.optimizer.lr == 7e-4 and config.evaluation.prompts == 128
    assert Plan.of(config).problems == 1024 and Plan.of(config).rate == "at lr 0.0007 for all"


def test_what_is_missing_of_a_plan() -> None:
    made = plan(controls=["frozen"])
    ended = [(row, seed) for row in ("grpo", "gspo", "dapo", "grpo+frozen") for seed in range(4)]
    assert made.missing(ended) == 0 and made.missing(ended[1:]) == 1 and made.missing([]) == 16


def test_the_same_plan_is_declared_once(tmp_path: Path) -> None:
    first = declare(tmp_path, plan())
    assert declare(tmp_path, plan()) == first == read_plan(tmp_path)
    assert len(first.analyses) == 1 and first.look == 1 and first.notes == []
    assert read_plan(tmp_path / "elsewhere") is None


def test_more_seeds_extend_it_and_cost_a_look(tmp_path: Path) -> None:
    once = judged(tmp_path, declare(tmp_path, plan()))
    assert judged(tmp_path, once) == once and once.look == 1  # judged again, and nothing is new
    more = declare(tmp_path, plan(seeds=8))
    assert more.analyses[-1]["kind"] == "more seeds" and more.look == 2
    assert any(note.startswith("Seeds were added on ") for note in more.notes)
    assert more.notes[-1] == "The data were judged 2 times; each time the level is smaller."


def test_a_plan_that_was_changed_before_it_was_judged_costs_none(tmp_path: Path) -> None:
    declare(tmp_path, plan())
    assert declare(tmp_path, plan(seeds=8)).look == 1


def test_another_margin_is_a_new_analysis_with_its_date(tmp_path: Path) -> None:
    """`--resume --set margin=0.5` on finished runs made 7 points "equivalent", and nothing recorded it."""
    write_study(tmp_path, seeds=6)
    declared = read_plan(tmp_path)
    assert declared is not None
    judged(tmp_path, declared)
    write_plan(tmp_path, ("grpo", "dapo"), 6, margin=0.5)
    changed = read_plan(tmp_path)
    assert changed is not None and changed.look == 2 and changed.analyses[-1]["changes"] == {"margin": [0.02, 0.5]}
    page = write_report(tmp_path).read_text()
    assert re.search(r"New analysis on [\d-]+ [\d:]+ UTC, after 12 runs had ended: margin from 0.02 to 0.5\.", page)
    assert "at most 0.938%" in page


def test_a_report_has_no_verdict_without_a_plan_or_before_its_end(tmp_path: Path) -> None:
    for seed in range(3):
        for name, better in (("grpo", 0.0), ("dapo", 0.2)):
            write_run(tmp_path / "none", name, seed, (0.25, 0.4, 0.5 + better + 0.01 * seed))
    assert "No verdict: there is no plan.json" in write_report(tmp_path / "none").read_text()
    write_study(tmp_path / "some", seeds=3)
    write_plan(tmp_path / "some", ("grpo", "dapo"), 4)
    page = write_report(tmp_path / "some").read_text()
    assert "No verdict: the plan is not complete: 2 of its runs have not ended." in page
    assert "is better than" not in page


def test_a_comparison_writes_its_plan_before_it_trains(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    shared = make_config().model_dump(exclude={"objective", "seed", "control"})
    config = CompareConfig.model_validate(shared | {"objectives": ["reinforce", "grpo"], "seeds": 2})
    compare(config, tmp_path, backbone=backbone)
    (analysis,) = json.loads((tmp_path / "plan.json").read_text())["analyses"]
    assert analysis["kind"] == "declared" and analysis["ended"] == 0 and analysis["judged"]
    again = compare(config.model_copy(update={"margin": 0.4}), tmp_path, resume=True, backbone=backbone)
    assert again.declared is not None and again.declared.look == 2
    assert again.judgement.level == pytest.approx(0.05 * 0.75 * 0.25) and again.judgement.margin == 0.4
    assert read_comparison(tmp_path).judgement == again.judgement


def test_a_search_sees_the_validation_split_alone() -> None:
    table = {"objectives": ["grpo", "gspo"], "seeds": 2, "tune": {"values": [1e-3, 7e-4]}}
    runs = search_runs(CompareConfig.model_validate(table))
    assert len(runs) == 8 and all(run.evaluation.at_the_ends().prompts == 0 for run in runs.values())
