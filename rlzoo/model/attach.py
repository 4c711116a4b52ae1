"""Selecting the layers to adapt, and replacing every linear layer but the head by a `MultiLoraLinear`.

Layers without an adapter are replaced too: in eval mode a bare 4-bit layer may repack its weight (see `multi_lora`).
Only the exact layer types below are replaced. A subclass may compute something else, so it is left alone and cannot be
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
"""The exact types of linear layers; Conv1D is GPT-2's and stores its weight transposed."""
NAMED = {"FalconLinear"}
"""Subclasses of `nn.Linear` that also compute W x + b, by class name."""
ALL = "all-linear"
MLP = {"mlp", "feed_forward", "block_sparse_moe", "moe", "experts", "shared_experts", "shared_expert"}
"""Names of the MLP modules in transformers' models with experts."""


def linear_layers(model: Any) -> dict[str, nn.Module]:
    """Return the linear layers of the text decoder (types `LINEAR` and `NAMED`) by name, without the output head."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    (prefix,) = (name for name, module in model.named_modules() if module is decoder)
    inside = ((name, module) for name, module in model.named_modules() if name.startswith(prefix))
    return {name: module for name, module in inside if _is_linear(module) and module is not head}


def _is_linear(module: nn.Module) -> bool:
    return type(module) in LINEAR or type(module).__name__ in NAMED


def round_weights(linears: dict[str, nn.Module]) -> None:
    """Round the weights to bfloat16 and keep their dtype."""
    for module in linears.values():
        module.weight.data = module.weight.data.bfloat16().to(module.weight.dtype)


def attach(
    model: Any, config: BackboneConfig, switch: AdapterSwitch, linears: dict[str, nn.Module], reference: Reference
) -> tuple[AdapterLayout, LoraConfig, list[MultiLoraLinear]]:
    """Replace the linear layers of `model` in place; those that `config.lora` selects get an adapter.

    "all-linear" selects the layers whose input is whole rows. Routers, experts and others that receive selected tokens
    get no adapter.

    Returns:
        The layout of theta, PEFT's configuration, and all replaced layers.

    Raises:
        UserError: `config.lora` selects no layer, or one that cannot have an adapter per row.
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
    del model.peft_config  # PEFT's mark on a model that it wraps; its layers are gone
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
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a deprecated name of transformers
            warnings.filterwarnings("ignore", message="fan_in_fan_out")  # GPT-2: PEFT corrects the setting itself
            return get_peft_model(model, lora, low_cpu_mem_usage=True)
    except ValueError as error:
        raise UserError(
            f"{config.model!r} cannot have an adapter with target_modules={config.lora.target_modules!r}: "
            f"{str(error).splitlines()[0][:300]} Linear layers here: {_list(linears)}"
        ) from error


def _all_linear(model: Any, linears: dict[str, nn.Module], reference: Reference) -> set[str]:
    """Return the layers whose input is whole rows. In a model with experts, no MLP: PEFT would match its name with
    the experts, which receive selected tokens."""
    experts = any(name.endswith(".experts") for name, _ in model.named_modules())
    whole = {name for name in linears if name in reference.whole_rows}
    return {name for name in whole if not (experts and MLP & set(name.split(".")))}


def _endings(model: Any, names: set[str]) -> set[str]:
    """Return the last components of the names if these select the same modules, else the full names."""
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
            f"target_modules selects {name!r} of {config.model!r}, whose input is not whole rows of tokens, so it "
            f"cannot have one adapter per row. Layers that can: {_list(usable)}"
        )


def _list(linears: dict[str, nn.Module]) -> str:
    return ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears})) or "none"
