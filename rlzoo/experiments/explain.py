"""What a run or a comparison will do, said before anything is loaded: work, memory, and what its objectives do here.

    memory = weights + runs * (theta, gradient, two moments) + the larger of (keys and values | activations of a pass)

Sizes come from the model's config.json, in its folder or in the cache of the Hub, and are estimates. Without it only
the weights are estimated, from the model's name. Nothing is loaded and no network is asked.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import RunConfig
from rlzoo.config.sizes import ITEM_BYTES, activation_bytes, parameters
from rlzoo.model.hub import SHIPPED

GIB = 2**30
_NAME_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHT_BYTES = {"nf4": 0.52, "bf16": 2.0, "fp32": 4.0}
"""Per weight of a linear layer; nf4 with its doubly quantized scales."""
THETA_BYTES = 16
"""Per adapter parameter: itself, its gradient and Adam's two moments, in float32."""


@dataclass(frozen=True)
class Shape:
    """What the estimate of memory needs to know of a model."""

    parameters: float
    layers: int
    width: int
    kv_width: int
    linear_width: int
    """Inputs and outputs of a layer's linear maps together: what an adapter of rank 1 has parameters."""
    vocabulary: int


@dataclass(frozen=True)
class Explanation:
    """What will happen. Counts are of one run and step unless said otherwise; memory in GiB, None where unknown."""

    runs: int
    steps: int
    responses: int
    prompts: int
    tokens_at_most: int
    rounds_at_most: int
    updates: int
    updates_in_all: int
    evaluations: int
    evaluation_responses: int | None
    """Of each evaluation on the way; None: of every held-out problem, whose number is not known yet."""
    final_responses: int
    """Of each evaluation on the test split, the first and the last; 0: there is none."""
    settings: dict[str, Any]
    parameters: float | None
    memory: dict[str, float] = field(default_factory=dict)
    missing: str | None = None
    """What is not known of the memory, and how it can be."""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return asdict(self)


def explain(config: RunConfig | CompareConfig) -> Explanation:
    """Say what a configuration will do."""
    alone = config.by_task().values() if isinstance(config, CompareConfig) else ()
    runs = [run for one in alone for run in one.runs()] if isinstance(config, CompareConfig) else [config]
    train, evaluation = config.train, config.evaluation
    ends = evaluation.at_the_ends()
    responses = train.prompts_per_step * train.group_size
    rounds = max(run.objective.select.max_rounds for run in runs)
    shape = shape_of(config.backbone.model)
    size = shape.parameters if shape else parameters(config.backbone.model)
    return Explanation(
        runs=len(runs),
        steps=train.steps,
        prompts=train.prompts_per_step,
        responses=responses,
        tokens_at_most=responses * train.max_new_tokens * rounds,
        rounds_at_most=rounds,
        updates=train.updates_per_rollout,
        updates_in_all=train.updates_per_rollout * train.steps * len(runs),
        evaluations=1 + -(-train.steps // evaluation.every),
        evaluation_responses=None if evaluation.prompts == "all" else evaluation.prompts * evaluation.samples,
        final_responses=int(ends.prompts) * ends.samples,
        settings={
            "optimizer.lr": config.optimizer.lr,
            "optimizer.warmup_steps": config.optimizer.warmup_steps,
            "train.max_new_tokens": train.max_new_tokens,
            "backbone.precision": config.backbone.precision,
        },
        parameters=size,
        memory=memory(config, shape, len(runs)) if shape else weights_alone(config, size),
        missing=None if shape else missing(config.backbone.model, size),
        notes=tuple(notes(runs)),
    )


def shape_of(model: str) -> Shape | None:
    """Return the shape of a model whose config.json is here or in the cache of the Hub; None for any other."""
    try:
        return shape_from(json.loads(_config_of(model).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shape_from(known: dict[str, Any]) -> Shape:
    """Return the shape that the table of a config.json describes. Raises `KeyError` if it lacks a size."""
    known = known.get("text_config", known)
    layers, width, inner = (known[key] for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    heads, vocabulary = known["num_attention_heads"], known["vocab_size"]
    head = known.get("head_dim") or width // heads
    kv_width = head * (known.get("num_key_value_heads") or heads)
    queries = head * heads
    maps = [(width, queries), (width, kv_width), (width, kv_width), (queries, width), *3 * [(width, inner)]]
    embeddings = vocabulary * width * (1 if known.get("tie_word_embeddings", True) else 2)
    count = embeddings + layers * sum(a * b for a, b in maps)
    return Shape(count, layers, width, kv_width, sum(a + b for a, b in maps), vocabulary)


def _config_of(model: str) -> Path:
    """Return where the model's config.json is, or would be."""
    folder = SHIPPED if model == "shipped" else Path(model).expanduser()
    if not folder.exists() and _NAME_ON_HUB.fullmatch(model):
        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
    return folder / "config.json"


def weights_alone(config: RunConfig | CompareConfig, size: float | None) -> dict[str, float]:
    """Return the one part of the memory that follows from the number of parameters."""
    return {} if size is None else {"weights": round(size * WEIGHT_BYTES[config.backbone.precision] / GIB, 3)}


def missing(model: str, size: float | None) -> str:
    """Say what cannot be estimated of a model without its shape, and what to do for it."""
    lacks = "adapters, sampling, learning and peak" if size else "all of it"
    if model == "smollm2" or model.endswith(".gguf"):
        return f"unknown: {lacks}, as the shape of a GGUF file is read when it is first loaded"
    if _NAME_ON_HUB.fullmatch(model) and not Path(model).expanduser().exists():
        return f"unknown: {lacks}, as {model}'s config.json is not in the cache; hf download {model} config.json"
    return f"unknown: {lacks}, as {model} has no config.json with the sizes of a transformer's layers"


def memory(config: RunConfig | CompareConfig, shape: Shape, runs: int) -> dict[str, float]:
    """Return where memory goes, in GiB: `weights`, `adapters`, `sampling`, `learning` and the `peak` of these."""
    backbone, train, engine = config.backbone, config.train, config.engine
    full = backbone.compute == "fp32" or backbone.precision == "fp32"
    compute = "fp32" if full or (backbone.compute == "auto" and backbone.device == "cpu") else "bf16"
    bytes_each = ITEM_BYTES[compute]
    embeddings = shape.vocabulary * shape.width
    linear = shape.parameters - embeddings
    weights = embeddings * bytes_each + linear * WEIGHT_BYTES[backbone.precision]
    theta = shape.layers * shape.linear_width * backbone.lora.r
    rows = min(engine.sample_rows, runs * train.prompts_per_step * train.group_size)
    keys_values = 2 * shape.layers * shape.kv_width * bytes_each * rows * train.max_new_tokens
    of_token = activation_bytes(shape.width, shape.layers, compute, engine.gradient_checkpointing)
    activations = of_token * engine.micro_batch_tokens
    parts = {
        "weights": weights,
        "adapters": float(runs * theta * THETA_BYTES),
        "sampling": float(keys_values),
        "learning": float(activations),
    }
    peak = parts["weights"] + parts["adapters"] + max(parts["sampling"], parts["learning"])
    return {name: round(value / GIB, 3) for name, value in {**parts, "peak": peak}.items()}


def notes(runs: list[RunConfig]) -> list[str]:
    """Return what the objectives will and will not do under this schedule, each thing once."""
    found: list[str] = []
    for run in {run.objective.name: run for run in runs}.values():
        objective, train = run.objective, run.train
        found += run.warnings
        if train.updates_per_rollout == 1:
            idle = objective.changes_from(objective.at_ratio_one()).keys() - {"name"}
            if idle:
                found.append(
                    f"{objective.name}: one update per rollout, so every ratio is 1 and {', '.join(sorted(idle))} does "
                    "nothing; set train.minibatches or train.epochs above 1 to give it something to do"
                )
        if train.group_size == 1 and "group" not in objective.needs:
            found.append(f"{objective.name}: one response per prompt, so pass@k and silent groups cannot be measured")
    return list(dict.fromkeys(found))
