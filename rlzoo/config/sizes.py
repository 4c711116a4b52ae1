"""Defaults that depend on the model's size: the shipped model's learning rate would ruin a pretrained model.

| parameters  | learning rate | new tokens | weights on a CPU | warm-up        |
|-------------|---------------|------------|------------------|----------------|
| below 20 M  | 7e-4          | 32         | nf4              | none           |
| up to 0.3 B | 2e-4          | 256        | fp32             | 1 step in 20   |
| up to 1 B   | 1e-4          | 512        | fp32             | 1 step in 20   |
| up to 4 B   | 5e-5          | 512        | nf4              | 1 step in 20   |
| up to 15 B  | 2e-5          | 512        | nf4              | 1 step in 20   |
| above       | 1e-5          | 512        | nf4              | 1 step in 20   |

On a GPU weights are held in bf16 if they take no more than half of its memory, else in nf4. Rates are those usual for
LoRA (1e-5 to 2e-4), falling with size; the table is our choice. A model of unknown size counts as one of up to 4 B.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

SHIPPED_LR, SMALL = 7e-4, 20e6
TABLE = ((0.3e9, 2e-4, 256), (1e9, 1e-4, 512), (4e9, 5e-5, 512), (15e9, 2e-5, 512), (float("inf"), 1e-5, 512))
UNKNOWN = 4e9
FLOAT32_LIMIT = 1e9
"""Parameters up to which weights are float32 on a CPU, where 4-bit ones cost accuracy and save no time."""
WARMUP_SHARE = 20
GGUF_BYTES = 0.7
"""Of a parameter in a 4-bit GGUF file, the embedding in more bits included (SmolLM2-135M in Q4_1: 0.73)."""

ACTIVATION_BYTES = {"bf16": 76, "fp32": 110}
"""Kept for the backward pass per token, layer and unit of width; 116 KB a token and layer were measured at width 1,536
in bf16, and float32 keeps its activations twice as wide."""
ITEM_BYTES = {"bf16": 2, "fp32": 4}

_IN_NAME = re.compile(r"(?<![\dA-Za-z.])(\d+(?:\.\d+)?)\s*([bBmM])(?![A-Za-z])")


def parameters(model: str) -> float | None:
    """Return about how many parameters a model has, from its files if they are here, else from its name; None: unknown.

    Nothing is loaded and no network is asked.
    """
    if model == "smollm2":
        return 135e6
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path.stat().st_size / GGUF_BYTES
    if path.is_dir():
        return _of_folder(path)
    found = _IN_NAME.findall(model)
    return float(found[-1][0]) * {"b": 1e9, "m": 1e6}[found[-1][1].lower()] if found else None


def _of_folder(path: Path) -> float | None:
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    held = str(config.get("dtype") or config.get("torch_dtype"))
    return size / (4 if held == "float32" else 2) if size else None


def activation_bytes(width: int, layers: int, compute: str, checkpointing: bool = False) -> int:
    """Return the bytes per token that a forward pass keeps for the backward pass.

    With gradient checkpointing: the input of every layer, and while one layer runs again all that it keeps.
    """
    layer = ACTIVATION_BYTES[compute] * width
    return layer + layers * width * ITEM_BYTES[compute] if checkpointing else layers * layer


def defaults(size: float | None, steps: int, gpu_bytes: int | None) -> dict[str, dict[str, Any]]:
    """Return the default settings for a model of this size; none for a small one.

    Args:
        size: parameters; None: unknown.
        gpu_bytes: memory of the GPU that will be used; None without one.
    """
    count = UNKNOWN if size is None else size
    if count < SMALL:
        return {}
    rate, tokens = next((rate, tokens) for limit, rate, tokens in TABLE if count <= limit)
    if gpu_bytes is None:
        precision = "fp32" if count <= FLOAT32_LIMIT else "nf4"
    else:
        precision = "bf16" if 2 * count <= gpu_bytes / 2 else "nf4"
    return {
        "backbone": {"precision": precision},
        "train": {"max_new_tokens": tokens},
        "optimizer": {"lr": rate, "warmup_steps": steps // WARMUP_SHARE},
    }


def gpu_bytes(device: str) -> int | None:
    """Return the memory of the GPU that a `backbone.device` means; None for a CPU or none there."""
    if device == "cpu" or not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0 if device == "auto" else device).total_memory


def fill(table: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return a table of settings in which unset values have the defaults of the model's size.

    Sections that are already settings objects are left unchanged, and so is a table without a model's name.
    """
    backbone = table.get("backbone")
    model = backbone.get("model") if isinstance(backbone, dict) else None
    if not isinstance(model, str) or model == "shipped":
        return table
    train = table.get("train")
    given = train.get("steps") if isinstance(train, dict) else getattr(train, "steps", None)
    count = max(given, 0) if isinstance(given, int) else steps
    filled = dict(table)
    device = str(backbone.get("device", "auto")) if isinstance(backbone, dict) else "auto"
    for section, values in defaults(parameters(model), count, gpu_bytes(device)).items():
        there = table.get(section, {})
        if not isinstance(there, dict):
            continue
        if there.get("compute") == "bf16" and values.get("precision") == "fp32":
            values = values | {"precision": "bf16"}
        filled[section] = values | there
    return filled
