"""A comparison: folders, table and curves; what is done is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.engine.forked import OnRecord
from rlzoo.errors import UserError
from rlzoo.experiments.compare import compare, read_comparison
from rlzoo.experiments.rows import summary_row
from rlzoo.model.backbone import Backbone
from rlzoo.stats.scores import Trace
from rlzoo.stats.sentences import sentences
from rlzoo.training.launch import train
from tests.runs import EvenTask

MakeConfig = Callable[..., RunConfig]


def comparison(make_config: MakeConfig, **changes: Any) -> CompareConfig:
    shared = make_config().model_dump(exclude={"objective", "seed", "control"})
    return CompareConfig.model_validate(shared | {"objectives": ["reinforce", "grpo"], "seeds": 2} | changes)


def test_a_comparison_from_start_to_table(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    result = compare(comparison(make_config), tmp_path, backbone=backbone)
    assert [row.objective for row in result.rows] == ["reinforce", "grpo"]
    for row in result.rows:
        assert row.seeds == 2 and row.failed == 0 and row.before is not None and row.after is not None
        assert row.gain is not None and row.gain.mean == pytest.approx(row.after.mean - row.before.mean)
        assert row.tokens_sampled > 0 and row.updates == 6
    assert result.rows[0].before == result.rows[1].before  # adapters start as the base model; same prompts, same noise
    table = json.loads((tmp_path / "summary.json").read_text())
    assert [r["objective"] for r in table["rows"]] == ["reinforce", "grpo"] and len(table["runs"]) == 4
    final = table["judgement"]
    assert {s["algorithm"]: s["mean"]["mean"] for s in final["standings"]} == {
        row.objective: row.after.mean for row in result.rows if row.after
    }
    assert [(pair["n"], pair["same_seeds"]) for pair in final["pairs"]] == [(2, True)]
    assert final["sentences"] == sentences(result.judgement)
    assert final["refusal"]["name"] == "too few problems"  # eight are 12.5 points each
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "comparison.json",
        "grpo",
        "plan.json",
        "reinforce",
        "summary.json",
    ]


def test_a_reward_that_knows_nothing_makes_no_verdict(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """It returns None for every response, so nothing is trained. Five such seeds were once "equivalent"."""
    task = EvenTask("even").scored_by(reward=lambda completions, **_: [None] * len(completions))
    config = comparison(make_config, seeds=5, train=make_config(train={"steps": 1}).train.model_dump(), margin=0.9)
    with pytest.warns(UserWarning, match="the first step has no signal"):
        made = compare(config, tmp_path, backbone=backbone, task=task)
    assert {s["updates"] for s in made.summaries} == {0} and made.judgement.refusal is not None
    assert made.judgement.refusal.name == "no update" and [pair.verdict for pair in made.judgement.pairs] == [None]
    assert sentences(made.judgement)[0].startswith("No verdict: no run made an update")


def test_an_interrupted_comparison_is_read_and_goes_on(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Interrupted when its first run ends: what has ended is a comparison, the rest trains when it is resumed."""

    @contextmanager
    def interrupted(runs: Mapping[str, RunConfig]) -> Iterator[OnRecord]:
        def stop(name: str, record: dict[str, Any]) -> None:
            if record["kind"] == "end":
                raise KeyboardInterrupt

        yield stop

    config = comparison(make_config)
    with pytest.raises(KeyboardInterrupt):
        compare(config, tmp_path, watch=interrupted, backbone=backbone)
    so_far = read_comparison(tmp_path)
    assert so_far.config == config and [row.objective for row in so_far.rows] == ["reinforce", "grpo"]
    assert 1 <= len(so_far.summaries) < 4 and sum(row.seeds for row in so_far.rows) == len(so_far.summaries)
    with pytest.raises(UserError, match=r"already holds a comparison.*--resume"):
        compare(config, tmp_path, backbone=backbone)
    whole = compare(config, tmp_path, resume=True, backbone=backbone)
    assert read_comparison(tmp_path).as_dict() == whole.as_dict()
    with pytest.raises(UserError, match=r"holds no comparison: there is no comparison.json"):
        read_comparison(tmp_path / "grpo")


def test_objectives_and_seeds_can_be_added(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    compare(comparison(make_config), tmp_path, backbone=backbone)
    for again in (comparison(make_config), comparison(make_config, objectives=["ppo"])):
        with pytest.raises(UserError, match=r"already holds a comparison.*--resume"):
            compare(again, tmp_path, backbone=backbone)
    logs = {path: path.read_bytes() for path in tmp_path.glob("*/seed*/metrics.jsonl")}
    more = comparison(make_config, objectives=["reinforce", "grpo", "gspo"], seeds=3)
    result = compare(more, tmp_path, resume=True, backbone=backbone)
    assert [row.seeds for row in result.rows] == [3, 3, 3]
    assert len(logs) == 4 and all(path.read_bytes() == text for path, text in logs.items())
    counts = {
        path.parent.parent.name: sum(json.loads(line)["kind"] == "eval" for line in path.read_text().splitlines())
        for path in tmp_path.glob("*/seed*/metrics.jsonl")
    }
    assert counts == {"reinforce": 3, "grpo": 3, "gspo": 3}  # of 3 steps: before 0 and 2, after the last


def test_every_run_in_a_folder_has_its_settings(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    """Also those of other objectives, and those that `train` put there: one table never mixes settings."""
    stray = make_config("reinforce")
    with pytest.raises(RuntimeError, match="killed"):
        train(stray, tmp_path / stray.name, backbone=backbone, on_record=killed_at_the_first_evaluation)
    other = comparison(make_config, objectives=["grpo"], seeds=1, optimizer={"lr": 0.5})
    with pytest.raises(UserError, match=r"reinforce/seed0 holds a run .*\n  optimizer\.lr: 0\.003 in the folder, 0\.5"):
        compare(other, tmp_path, backbone=backbone)
    assert not (tmp_path / "grpo").exists()
    same = comparison(make_config, objectives=["ppo"], seeds=1, train=stray.train.model_dump() | {"critic": "adapter"})
    compare(same, tmp_path, backbone=backbone)  # the critic is the business of those who have one


def killed_at_the_first_evaluation(_: str, record: dict[str, Any]) -> None:
    if record["kind"] == "eval":
        raise RuntimeError("killed")


def test_a_failed_seed_counts_in_its_row() -> None:
    """One seed goes from 25% to 50%, the other fails at 35%: the row gains 17.5 points, not 25."""
    cost = {"updates": 4, "tokens_sampled": 10, "tokens_discarded": 2, "engine_s": 1.0}
    before = {"accuracy": 0.25, "length": 4}
    done = {"state": "done", "seed": 0, "before": before, "after": {"accuracy": 0.5, "length": 5}}
    failed = {"state": "failed", "seed": 1, "before": before, "after": {"accuracy": 0.35, "length": 7}}

    def trace(s: dict[str, Any]) -> Trace:
        records = [{"kind": "eval", **s[end]} for end in ("before", "after")]
        return Trace("x", s["seed"], records, s["state"] == "failed")

    summaries = [done | cost, failed | cost | {"tokens_sampled": 4}]
    row = summary_row("x", summaries, [trace(s) for s in summaries])
    assert (row.seeds, row.failed, row.tokens_sampled, row.length_after) == (2, 1, 7, 6)
    assert row.after is not None and row.after.mean == pytest.approx(0.425)
    assert row.gain is not None and (row.gain.mean, row.gain.n) == (pytest.approx(0.175), 2)
    assert summary_row("x", [{**failed, **cost, "after": None}], []).after is None
