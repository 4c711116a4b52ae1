"""Defaults by the size of the model: from its files, its name, or neither."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.config.sizes import SHIPPED_LR, defaults, fill, parameters

GB = 10**9


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.5e9), ("meta-llama/Llama-3.1-8B", 8e9), ("HuggingFaceTB/SmolLM2-135M", 135e6),
        ("smollm2", 135e6), ("Qwen/Qwen3-30B-A3B", 3e9), ("gpt2", None), ("google/gemma-2-2b-it", 2e9),
    ],
)  # fmt: skip
def test_the_size_is_read_off_the_name(model: str, count: float | None) -> None:
    assert parameters(model) == (30e9 if "A3B" in model else count)


def test_the_size_is_read_off_the_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(4000))
    assert parameters(str(tmp_path)) is None  # no config.json
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float32"}))
    assert parameters(str(tmp_path)) == 1000
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16"}))
    assert parameters(str(tmp_path)) == 2000
    (tmp_path / "a.gguf").write_bytes(bytes(700))
    assert parameters(str(tmp_path / "a.gguf")) == pytest.approx(1000)


def test_the_rate_falls_with_size_and_weights_are_bf16_where_they_fit() -> None:
    sizes = (0.1e9, 0.5e9, 1.5e9, 7e9, 70e9)
    rates = [defaults(size, 100, None)["optimizer"]["lr"] for size in sizes]
    assert rates == [2e-4, 1e-4, 5e-5, 2e-5, 1e-5]
    assert defaults(19e6, 100, None) == {}
    assert defaults(None, 100, None) == defaults(4e9, 100, None)
    assert (
        defaults(1e9, 100, None)["optimizer"]["warmup_steps"] == 5
        and defaults(1e9, 19, None)["optimizer"]["warmup_steps"] == 0
    )
    held = [
        defaults(size, 100, gpu)["backbone"]["precision"] for size, gpu in ((7e9, 80 * GB), (7e9, 24 * GB), (7e9, None))
    ]
    assert held == ["bf16", "nf4", "nf4"]  # 14 GB of weights: less than half of 80, more than half of 24
    assert defaults(0.5e9, 100, None)["backbone"]["precision"] == "fp32"


def test_what_somebody_set_stays() -> None:
    named = {"backbone": {"model": "Qwen/Qwen2.5-0.5B", "device": "cpu"}}
    run = RunConfig.model_validate({"objective": "grpo", **named, "train": {"steps": 40}, "optimizer": {"lr": 3e-3}})
    assert (run.optimizer.lr, run.optimizer.warmup_steps, run.train.max_new_tokens) == (3e-3, 2, 512)
    assert run.backbone.precision == "fp32"
    assert RunConfig.model_validate(run.stored()).stored() == run.stored()
    compared = CompareConfig.model_validate({"objectives": ["grpo"], "seeds": 1, **named})
    assert {config.optimizer.lr for config in compared.runs()} == {1e-4}
    rounded = RunConfig.model_validate({"objective": "grpo", "backbone": named["backbone"] | {"compute": "bf16"}})
    assert rounded.backbone.precision == "bf16"


def test_the_shipped_model_has_defaults_of_its_own() -> None:
    run = RunConfig.model_validate({"objective": "grpo"})
    assert (run.optimizer.lr, run.train.max_new_tokens, run.optimizer.warmup_steps) == (SHIPPED_LR, 32, 0)
    table = {"backbone": {"model": "shipped"}}
    assert fill(table, 60) is table
