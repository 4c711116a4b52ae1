"""Held-out evaluation: the same prompts and noise for all runs, and correct accuracies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import EvaluationSettings, RunConfig
from rlzoo.engine.protocol import BASE, SampleRequest
from rlzoo.engine.sampler import sample
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Problem, load_task
from rlzoo.training.evaluate import Evaluation, distinct, evaluate_policy
from rlzoo.training.launch import train
from tests.models import random_adapter
from tests.runs import EvenTask
from tests.training.same import untimed

MakeConfig = Callable[..., RunConfig]


def evaluated(backbone: Backbone, adapter: Path | None = None, **settings: Any) -> Evaluation:
    chosen = EvaluationSettings.model_validate({"prompts": 8} | settings)
    return evaluate_policy(backbone, load_task("even"), adapter, chosen, max_new_tokens=6, temperature=1.0)


def test_every_policy_answers_the_same_held_out_prompts_with_the_same_noise(backbone: Backbone, tmp_path: Path) -> None:
    fresh, trained = tmp_path / "fresh", tmp_path / "trained"
    backbone.save_adapter(backbone.new_adapter(5), fresh)
    backbone.save_adapter(random_adapter(backbone, 0), trained)
    base, again = evaluated(backbone), evaluated(backbone)
    assert base.rollout.completions == again.rollout.completions
    assert evaluated(backbone, fresh).rollout.completions == base.rollout.completions  # B = 0
    moved = evaluated(backbone, trained)
    assert moved.rollout.completions != base.rollout.completions
    assert [p.prompt for p in moved.rollout.problems] == [p.prompt for p in base.rollout.problems]
    few = evaluate_policy(
        backbone, load_task("even"), None, EvaluationSettings(prompts=8), batching=EngineSettings(sample_rows=3),
        max_new_tokens=6, temperature=1.0,
    )  # fmt: skip
    assert few.rollout.completions == base.rollout.completions
    assert evaluated(backbone, prompts=12).rollout.completions[:8] == base.rollout.completions


def test_evaluation_has_noise_of_its_own(backbone: Backbone) -> None:
    """No training seed trains on the noise that it is evaluated with."""
    rollout = evaluated(backbone).rollout
    for seed in range(4):
        request = SampleRequest(BASE, rollout.tokens.prompts, 1, 6, seed=seed, step=0, prompt_keys=list(range(8)))
        (trained_on,) = sample(backbone, [request])
        assert trained_on.response_NT.tolist() != rollout.tokens.token_NT.tolist()


def test_different_responses_per_prompt_are_counted(backbone: Backbone) -> None:
    """Two prompts: "a" "b" "a" are two different responses, three times "c" is one: 1.5 on average."""
    made = evaluated(backbone, prompts=2, samples=3)
    assert distinct(replace(made.rollout, completions=["a", "b", "a", "c", "c", "c"])) == 1.5
    assert made.metrics["distinct"] == distinct(made.rollout) > 1
    assert math.isnan(evaluated(backbone).metrics["distinct"])


def test_held_out_is_the_test_split(backbone: Backbone) -> None:
    class Named(EvenTask):
        def problem(self, split: str, index: int) -> Problem:
            return Problem(f"{split}{index}", "")

    found = evaluate_policy(
        backbone, Named("named"), None, EvaluationSettings(prompts=3), max_new_tokens=6, temperature=1.0
    )
    assert len({p.prompt for p in found.rollout.problems}) == 3
    assert all(str(p.prompt).startswith("test") for p in found.rollout.problems)


def test_a_small_test_split_is_evaluated_whole(backbone: Backbone) -> None:
    assert len(evaluated(backbone, prompts=100).rollout.problems) == 48  # a quarter of 64 is for validation


def test_samples_and_pass_at_k(backbone: Backbone) -> None:
    wide = evaluated(backbone, samples=4)
    right_PG = wide.rollout.accuracy_N.view(8, 4)
    assert wide.metrics["accuracy"] == pytest.approx(float(right_PG.mean()))
    assert wide.metrics["pass@4"] == pytest.approx(float(right_PG.amax(dim=1).mean()))
    assert wide.metrics["accuracy"] <= wide.metrics["pass@2"] <= wide.metrics["pass@4"]
    assert wide.rollout.completions[::4] == evaluated(backbone).rollout.completions  # the first sample is the same


def test_greedy_takes_the_likeliest_token_and_claims_no_entropy(backbone: Backbone) -> None:
    greedy, sampled = evaluated(backbone, greedy=True), evaluated(backbone)
    assert greedy.rollout.logp_NT[:, 0].mean() > sampled.rollout.logp_NT[:, 0].mean()
    assert math.isnan(greedy.metrics["entropy"]) and sampled.metrics["entropy"] > 0


def test_greedy_responses_may_stand_beside_samples(backbone: Backbone) -> None:
    both, greedy = evaluated(backbone, samples=4, with_greedy=True), evaluated(backbone, greedy=True)
    assert both.metrics.pop("accuracy_greedy") == greedy.metrics["accuracy"]
    assert both.metrics == evaluated(backbone, samples=4).metrics
    with pytest.raises(ValueError, match="with_greedy is for samples"):
        EvaluationSettings(greedy=True, with_greedy=True)


def test_every_grader_of_a_task_grades_the_same_samples(backbone: Backbone) -> None:
    class Graded(EvenTask):
        def grades(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[str, list[float]]:
            assert len(problems) == len(completions) == 16
            return {"math-verify": [1.0] * 4 + [0.0] * 12}

    chosen = EvaluationSettings(prompts=8, samples=2)
    found = evaluate_policy(backbone, Graded("even"), None, chosen, max_new_tokens=6, temperature=1.0)
    assert found.metrics["accuracy_math_verify"] == 4 / 16
    assert not any(key.startswith("accuracy_") for key in evaluated(backbone).metrics)


def test_accuracy_does_not_depend_on_what_the_reward_function_can_score(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """A reward of None for what is wrong must not make the accuracy that is reported 100%."""
    unknown = {"reward": "tests.training.rewards:unknown_where_wrong"}
    for name, task in (("plain", {}), ("unknown", unknown)):
        train(make_config(task=task, train={"steps": 1}), tmp_path / name, backbone=backbone)
    plain, odd = (untimed(tmp_path / name)[:2] for name in ("plain", "unknown"))
    for record, twin in zip(plain, odd, strict=True):  # the evaluation before training, and the first rollout
        assert 0 < record["accuracy"] < 1
        assert twin["accuracy"] == record["accuracy"] and twin["reward"] == 1.0


def test_a_held_out_prompt_that_is_too_long_is_named_by_its_row_in_the_data(
    make_config: Callable[..., RunConfig], backbone: Backbone, tmp_path: Path
) -> None:
    """Held-out rows are taken in the order of a hash, so a count of them would lead to another row."""
    prompts = ["7" * (60 if row == 17 else 1 + row) for row in range(30)]
    for name, texts in (("train", ["1=", "2="]), ("test", prompts)):
        lines = "".join(json.dumps({"prompt": text, "answer": "4"}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    task = {"name": f"jsonl:{tmp_path}/train.jsonl", "test_path": str(tmp_path / "test.jsonl")}
    config = make_config(task=task, evaluation={"prompts": 100, "final_prompts": 100})
    with pytest.raises(UserError, match=r"test row 17: a prompt of 60 tokens with max_new_tokens 6 exceeds") as told:
        train(config, tmp_path / "run", backbone=backbone)
    assert "\n" not in str(told.value)
