"""How many GPUs a comparison takes, computed from memory and operations: the table of the README.

    python -m benchmarks.sizing

    GPUs  = runs / (most runs whose peak, by `rlzoo explain`'s model of memory, fits in 90% of a GPU)
    time  = steps * (batches * L * bytes read per decoded token / bandwidth + 10 P * tokens / operations per second)

The peak: weights, adapters with gradient and moments of every run, and the larger of keys and values and activations.
10 P operations per token: 2 P each for sampling, old log-probs and reference, 4 P for learning (frozen weights need no
gradient of their own). While L tokens of a batch of responses are decoded, weights and the batch's keys and values are
read for each. GPUs reach 40% of their peaks (our assumption; nothing here was measured on a GPU).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.sizes import ITEM_BYTES
from rlzoo.experiments.explain import GIB, WEIGHT_BYTES, Shape, memory, shape_from

REACHED = 0.4
USABLE = 0.9
STEPS = 100
COMPARISONS = ((2, 4), (5, 4), (10, 8))
"""Algorithms and seeds."""


@dataclass(frozen=True)
class Gpu:
    """Memory, dense bfloat16 operations per second and bytes per second of memory, from the maker's data sheet."""

    name: str
    memory: float
    operations: float
    bandwidth: float


SMALL_GPU = Gpu("RTX 4090, 24 GB", 24e9, 165e12, 1.01e12)
LARGE_GPU = Gpu("H100, 80 GB", 80e9, 989e12, 3.35e12)
MODELS: dict[str, dict[str, Any]] = {
    "Qwen2.5-0.5B": {"layers": 24, "width": 896, "inner": 4864, "heads": 14, "kv": 2, "tied": True, "words": 151936},
    "Qwen2.5-1.5B": {"layers": 28, "width": 1536, "inner": 8960, "heads": 12, "kv": 2, "tied": True, "words": 151936},
    "Qwen2.5-7B": {"layers": 28, "width": 3584, "inner": 18944, "heads": 28, "kv": 4, "tied": False, "words": 152064},
    "Qwen2.5-32B": {"layers": 64, "width": 5120, "inner": 27648, "heads": 40, "kv": 8, "tied": False, "words": 152064},
    "Qwen2.5-72B": {"layers": 80, "width": 8192, "inner": 29568, "heads": 64, "kv": 8, "tied": False, "words": 152064},
}
"""Sizes in the models' config.json."""


def shape_of(name: str) -> Shape:
    """Return the shape of one of `MODELS`."""
    known = MODELS[name]
    keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    table = dict(zip(keys, (known[key] for key in ("layers", "width", "inner", "heads", "kv")), strict=True))
    return shape_from(table | {"vocab_size": known["words"], "tie_word_embeddings": known["tied"]})


def settings(name: str, gpu: Gpu) -> CompareConfig:
    """64 responses of up to 512 tokens a step; bf16 where weights take at most half of the GPU, else nf4."""
    precision = "bf16" if 2 * shape_of(name).parameters <= gpu.memory / 2 else "nf4"
    return CompareConfig.model_validate(
        {
            "objectives": ["grpo", "dapo"],
            "backbone": {"model": name, "precision": precision, "device": "cuda", "compute": "bf16"},
            "train": {"steps": STEPS, "prompts_per_step": 8, "group_size": 8, "max_new_tokens": 512},
            "engine": {"gradient_checkpointing": True},
        }
    )


def runs_at_once(name: str, gpu: Gpu) -> int:
    """Return the most runs that fit on a GPU at the same time; 0: not even one."""
    config, shape = settings(name, gpu), shape_of(name)
    fits = 0
    while fits < 1000 and memory(config, shape, fits + 1)["peak"] * GIB <= USABLE * gpu.memory:
        fits += 1
    return fits


def seconds(name: str, gpu: Gpu, runs: int) -> float:
    """Return the time that one GPU takes to train this many runs, all responses as long as they may be."""
    config, shape = settings(name, gpu), shape_of(name)
    train, length = config.train, config.train.max_new_tokens
    rows = runs * train.prompts_per_step * train.group_size
    batches = math.ceil(rows / config.engine.sample_rows)
    cached = 2 * shape.layers * shape.kv_width * ITEM_BYTES["bf16"] * length / 2  # on average a response is half there
    weights = shape.parameters * WEIGHT_BYTES[config.backbone.precision]
    decoding = length * (batches * weights + rows * cached) / (REACHED * gpu.bandwidth)
    computing = 10 * shape.parameters * rows * length / (REACHED * gpu.operations)
    return STEPS * (decoding + computing)


def cell(name: str, gpu: Gpu, runs: int) -> str:
    """Return GPUs and hours of a comparison."""
    fit = runs_at_once(name, gpu)
    if fit == 0:
        return "a server"
    gpus = math.ceil(runs / fit)
    return f"{gpus} x {seconds(name, gpu, math.ceil(runs / gpus)) / 3600:.1f} h"


def table() -> str:
    """Return the table in Markdown."""
    heads = [f"{algorithms} x {seeds}" for algorithms, seeds in COMPARISONS]
    lines = [
        f"| model | runs on one {SMALL_GPU.name} | on one {LARGE_GPU.name} | {' | '.join(heads)} |",
        f"|{'---|' * (3 + len(heads))}",
    ]
    for name in MODELS:
        fits = [str(runs_at_once(name, gpu) or "none") for gpu in (SMALL_GPU, LARGE_GPU)]
        cells = [cell(name, LARGE_GPU, algorithms * seeds) for algorithms, seeds in COMPARISONS]
        lines.append(f"| {' | '.join([name, *fits, *cells])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
