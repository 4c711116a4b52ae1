"""Choosing the layers to adapt, and putting a `MultiLoraLinear` in the place of every linear layer but the head.

Layers without an adapter are replaced too: in eval mode a bare 4-bit layer may repack its weight (see `multi_lora`).
Only the exact layer types below are replaced. A subclass may compute anything else: it stays as it is, and cannot be
adapted.
"""

from __future__ import annotations

import warnings
from typing import Any

from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model.adapters import AdaptedLayer, AdapterLayout, to_peft
from rlzoo.model.multi_lora import AdapterSwitch, MultiLoraLinear
from rlzoo.model.reference import Reference

LINEAR = (nn.Linear, Linear4bit, Conv1D)
"""The exact types of linear layers; Conv1D is GPT-2's, with its weight transposed."""
NAMED = {"FalconLinear"}
"""Subclasses of `nn.Linear` that compute W x + b too."""
ALL = "all-linear"
MLP = {"mlp", "feed_forward", "block_sparse_moe", "moe", "experts", "shared_experts", "shared_expert"}
"""What transformers calls the MLPs of models with experts."""


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Return the layers of the text decoder that are exactly of the types `LINEAR`, by name, without the head."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    (prefix,) = (name for name, module in model.named_modules() if module is decoder)
    inside = ((name, module) for name, module in model.named_modules() if name.startswith(prefix))
    return {name: module for name, module in inside if _is_linear(module) and module is not head}


def _is_linear(module: nn.Module) -> bool:
    return type(module) in LINEAR or type(module).__name__ in NAMED


def round_weights(linears: dict[str, nn.Module]) -> None:
    """Round the weights to bfloat16, in the format that they have."""
    for module in linears.values():
        module.weight.data = module.weight.data.bfloat16().to(module.weight.dtype)


def attach(
    model: Any, config: BackboneConfig, switch: AdapterSwitch, linears: dict[str, nn.Module], reference: Reference
) -> tuple[AdapterLayout, LoraConfig, list[MultiLoraLinear]]:
    """Replace the linear layers, and give those that `config.lora` selects a place in the adapter's layout.

    "all-linear" selects the layers that see whole rows: not routers, experts and others that are given selected tokens.
    """
    wrapped = _select(model, config, linears, reference)
    peft_config = wrapped.peft_config["default"]
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    layers = []
    for name, module in adapted:
        base = module.get_base_layer()
        model.set_submodule(name, base)
        _check(model, config, name, base, linears, reference)
        layers.append(AdaptedLayer(name, module.in_features, module.out_features))
    scaling = adapted[0][1].scaling["default"]
    del model.peft_config  # PEFT's mark on the model it wraps: the adapters are ours from here on
    index_of = {layer.name: index for index, layer in enumerate(layers)}
    replaced = []
    for name, module in linears.items():
        if config.precision == "bf16":
            module.weight.data = module.weight.data.bfloat16()
        replaced.append(MultiLoraLinear(module, name, index_of.get(name), switch))
        model.set_submodule(name, replaced[-1])
    layout = AdapterLayout(tuple(layers), config.lora.r, scaling, model.get_output_embeddings().weight.shape[1])
    return layout, peft_config, replaced


def _select(model: Any, config: BackboneConfig, linears: dict[str, nn.Module], reference: Reference) -> Any:
    """Wrap the layers that `config.lora` selects in PEFT's layers, and return PEFT's model."""
    lora = to_peft(config.lora, model.name_or_path)
    if config.lora.target_modules == ALL:
        lora.target_modules = _endings(model, _all_linear(model, linears, reference))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that is on its way out
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # GPT-2: PEFT notices and does what is right
            return get_peft_model(model, lora, low_cpu_mem_usage=True)
    except ValueError as error:
        raise UserError(
            f"no adapter can be put on {config.model!r} with target_modules={config.lora.target_modules!r}: "
            f"{str(error).splitlines()[0][:300]} Linear layers here: {_list(linears)}"
        ) from error


def _all_linear(model: Any, linears: dict[str, nn.Module], reference: Reference) -> set[str]:
    """The layers that see whole rows. Of a model with experts none of the MLPs: PEFT takes their names for those of the
    experts, which are given selected tokens."""
    experts = any(name.endswith(".experts") for name, _ in model.named_modules())
    whole = {name for name in linears if name in reference.whole_rows}
    return {name for name in whole if not (experts and MLP & set(name.split(".")))}


def _endings(model: Any, names: set[str]) -> set[str]:
    """Return the last parts of the names if they select these modules and no others, else the names."""
    endings = {name.rsplit(".", 1)[-1] for name in names}
    selected = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in endings}
    return endings if selected == names else names


def _check(
    model: Any, config: BackboneConfig, name: str, base: nn.Module, linears: dict[str, nn.Module], reference: Reference
) -> None:
    """Raise `UserError` if a selected layer cannot have one adapter per row."""
    if base is model.get_output_embeddings():
        raise UserError(f"target_modules selects {name!r}, the output head, which is shared by all runs: leave it out")
    if name not in linears:
        raise UserError(
            f"target_modules selects {name!r}, a {type(base).__name__}; only linear layers of the text decoder can be "
            f"adapted: {_list(linears)}"
        )
    if name not in reference.whole_rows:
        usable = {name: linears[name] for name in linears if name in reference.whole_rows}
        raise UserError(
            f"target_modules selects {name!r} of {config.model!r}, which does not see whole rows of tokens, so it "
            f"cannot have one adapter per row. Layers that can: {_list(usable)}"
        )


def _list(linears: dict[str, nn.Module]) -> str:
    return ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears})) or "none"
