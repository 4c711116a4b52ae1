"""What a configuration will do, counted before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.experiments.explain import GIB, explain, shape_of
from rlzoo.model.hub import SHIPPED

TRAIN = {"steps": 10, "prompts_per_step": 4, "group_size": 8, "minibatches": 2, "epochs": 3, "max_new_tokens": 16}


def comparison(*objectives: str, **tables: Any) -> CompareConfig:
    given = {"train": TRAIN, "evaluation": {"every": 4, "prompts": 20, "samples": 2}} | tables
    return CompareConfig.model_validate({"objectives": list(objectives), "seeds": 3, **given})


def test_the_work_is_counted() -> None:
    made = explain(comparison("grpo", "rloo"))
    assert (made.runs, made.responses, made.tokens_at_most) == (6, 32, 32 * 16)
    assert (made.updates, made.updates_in_all) == (6, 6 * 10 * 6)
    assert (made.evaluations, made.evaluation_responses) == (4, 40)  # before step 1, 5 and 9, and after the last
    assert made.final_responses == 8 * 20 * 2  # of the test split, before the first step and after the last
    every = explain(comparison("grpo", evaluation={"prompts": "all"}))
    assert every.evaluation_responses is None and every.final_responses == 0
    assert made.as_dict()["settings"]["train.max_new_tokens"] == 16
    assert explain(comparison("grpo", "dapo")).tokens_at_most == 10 * 32 * 16  # it draws again up to ten times


def test_memory_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    """One layer of width 8 with 2 heads, 1 of keys: maps 8x8, 8x4, 8x4, 8x8, 3 of 8x16; 32 tokens of vocabulary."""
    config = {
        "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 32,
        "num_key_value_heads": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(str(tmp_path))
    assert shape is not None
    assert shape.parameters == 32 * 8 + 64 + 32 + 32 + 64 + 3 * 128 == 832
    assert shape.linear_width == 16 + 12 + 12 + 16 + 3 * 24 == 128
    backbone = {"model": str(tmp_path), "precision": "fp32", "device": "cpu", "lora": {"r": 4}}
    chosen = comparison("grpo", backbone=backbone, engine={"micro_batch_tokens": 2**20})
    memory = explain(chosen).memory
    assert memory["learning"] == round(110 * 8 * 2**20 / GIB, 3)
    checkpointed = {"micro_batch_tokens": 2**20, "gradient_checkpointing": True}
    less = explain(comparison("grpo", backbone=backbone, engine=checkpointed)).memory
    assert less["learning"] == round((110 * 8 + 1 * 8 * 4) * 2**20 / GIB, 3)  # a layer that runs again, and its input
    assert memory["adapters"] == round(3 * 128 * 4 * 16 / GIB, 3)
    assert memory["peak"] == round((4 * 832 + 3 * 128 * 4 * 16 + 110 * 8 * 2**20) / GIB, 3)


def test_a_model_that_is_not_here_has_weights_alone_and_says_what_is_missing() -> None:
    """7e9 parameters of 2 bytes are 13.039 GiB."""
    made = explain(comparison("grpo", backbone={"model": "nobody/model-7B", "precision": "bf16"}))
    assert made.memory == {"weights": 13.039}
    assert made.missing == (
        "unknown: adapters, sampling, learning and peak, as nobody/model-7B's config.json is not in the cache; "
        "hf download nobody/model-7B config.json"
    )
    nameless = explain(comparison("grpo", backbone={"model": "nobody/model"}))
    assert nameless.memory == {} and nameless.missing is not None and nameless.missing.startswith("unknown: all of it")


def test_a_config_in_the_cache_of_the_hub_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text((SHIPPED / "config.json").read_text())
    cached = {("somebody/model", "config.json"): str(tmp_path / "config.json")}
    monkeypatch.setattr("rlzoo.experiments.explain.try_to_load_from_cache", lambda *names: cached.get(names))
    assert shape_of("somebody/model") == shape_of("shipped") and shape_of("somebody/other") is None
    made = explain(comparison("grpo", backbone={"model": "somebody/model"}))
    assert made.missing is None and made.memory["peak"] > made.memory["adapters"] > 0


def test_what_does_nothing_here_is_said() -> None:
    once = RunConfig.model_validate({"objective": "gspo", "train": TRAIN | {"minibatches": 1, "epochs": 1}})
    (idle,) = explain(once).notes
    assert idle.startswith("gspo: one update per rollout, so every ratio is 1 and ratio, surrogate does nothing")
    (clips,) = explain(comparison("grpo", "gspo")).notes
    assert clips.startswith("gspo: surrogate 'clip': edges of 0.0003 and 0.0004")
    assert explain(comparison("grpo")).notes == ()
