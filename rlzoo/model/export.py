"""The base model as a plain folder that other libraries load: the weights that the trainer multiplies by.

4-bit weights are written dequantized, and rounded ones rounded, in the dtype of the activations. Whoever samples from
the folder samples from the base that is trained, not from a less rounded one.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rlzoo.model.backbone import Backbone
from rlzoo.model.multi_lora import MultiLoraLinear


def export_base(backbone: Backbone, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, without adapters and without a tokenizer. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(backbone.model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(backbone.model).__name__]
    config.dtype = backbone.dtype
    config.save_pretrained(folder)
    save_file(_weights(backbone), folder / "model.safetensors", metadata={"format": "pt"})


def unchanged_source(backbone: Backbone) -> str | None:
    """Return the folder or Hub name whose weights, read in the activations' dtype, are those of the backbone.

    None if there is none: weights of 4 bits, rounded ones under wider activations, or a model that was given as an
    object.
    """
    held = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(backbone.config.precision)
    return backbone.source if held == backbone.dtype else None


def _weights(backbone: Backbone) -> dict[str, Tensor]:
    """Name -> tensor as transformers names them; a tied tensor once, under its first name."""
    model = backbone.model
    layers = {name: module for name, module in model.named_modules() if isinstance(module, MultiLoraLinear)}
    found = {name: tensor for name, tensor in model.state_dict().items() if ".base." not in name}
    for name, layer in layers.items():
        found[f"{name}.weight"] = layer.dequantized(backbone.dtype) if layer.quantized else layer.base.weight
        if layer.bias is not None:
            found[f"{name}.bias"] = layer.bias
    places: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in found.items():
        places.setdefault((tensor.data_ptr(), tensor.shape), name)
    kept = {name: found[name] for name in places.values()}
    return {
        name: (x.to(backbone.dtype) if x.is_floating_point() else x).detach().cpu().contiguous()
        for name, x in kept.items()
    }
