"""A tiny random model and a task it half solves: everything the loop needs, in about a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig
from rlzoo.config.task import TaskConfig
from rlzoo.model.backbone import Backbone
from rlzoo.model.char_tokenizer import char_tokenizer
from rlzoo.tasks import Problem, Task, register_task


class EvenTask(Task):
    """Right is a completion whose first character has an even code: a random model is right half the time."""

    kind = "even"

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> EvenTask:
        return cls(config.name, reward=config.reward, accuracy=config.accuracy)

    def size(self, split: str) -> int | None:
        return 64 if split == "test" else None

    def problem(self, split: str, index: int) -> Problem:
        return Problem(f"{split[0]}{index % 997}=", "", {"index": index})

    def demonstration(self, problem: Problem, rng: Random, clean: bool = False) -> str:
        """`0` and two letters: right."""
        return "0" + "".join(rng.choices("xyz", k=2))

    def grade(self, problem: Problem, completion: str) -> float:
        return float(completion[:1] != "" and ord(completion[0]) % 2 == 0)


register_task(EvenTask)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen2 with a character tokenizer; its distributions are far from uniform."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = char_tokenizer(64)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = list(range(1, 98, 6))  # many end tokens: responses differ in length
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def backbone(model_folder: Path) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(model_folder), device="cpu"))


@pytest.fixture(scope="session")
def make_config(model_folder: Path) -> Callable[..., RunConfig]:
    """A small run; keyword arguments change whole tables: `train={"steps": 5}`."""

    def make(objective: Any = "grpo", seed: int = 0, **tables: Any) -> RunConfig:
        train = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "minibatches": 2, "max_new_tokens": 6}
        defaults: dict[str, Any] = {
            "task": {"name": "even"},
            "backbone": {"model": str(model_folder), "device": "cpu"},
            "train": {"save_every": 1} | train,
            "optimizer": {"lr": 3e-3},
            "evaluation": {"every": 2, "prompts": 8, "final_prompts": 0},
        }
        merged = {key: defaults.get(key, {}) | tables.get(key, {}) for key in defaults | tables}
        return RunConfig(objective=objective, seed=seed, **merged)

    return make
