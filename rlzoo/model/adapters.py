"""Adapters as vectors: everything a run trains is ONE flat float32 vector theta.

    theta = [ A_1, B_1, A_2, B_2, ..., value weight, value bias ]        A_i [r, in_i]   B_i [out_i, r]

Optimizers, clipping and checkpoints are then vector operations, and K runs are one [K, n] tensor. PEFT selects the
adapted layers, sets the scaling and defines the file format; this module does the arithmetic on the vector.
Dropout is always 0: with dropout, the trainer's log-probs would differ from those of the policy that sampled.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save
from torch import Tensor

from rlzoo import noise
from rlzoo.config.model import LoraSettings
from rlzoo.errors import UserError


def to_peft(lora: LoraSettings, base: str) -> LoraConfig:
    """Return PEFT's configuration of this adapter on the model named `base`."""
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=targets,
        use_rslora=lora.rslora,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )


@dataclass(frozen=True)
class AdaptedLayer:
    """One adapted linear layer: its name in the model and its sizes."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True)
class AdapterLayout:
    """Order of the pieces of theta: per layer A [r, in], then B [out, r]; the value head is last.

    Attributes:
        layers: the adapted layers, in the order of theta.
        r: the rank.
        scaling: the factor s of s B A.
        hidden_size: width of the value head's weight.
    """

    layers: tuple[AdaptedLayer, ...]
    r: int
    scaling: float
    hidden_size: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of every piece of theta, in order: A and B of each layer, value weight [hidden], value bias [1]."""
        pairs = [((self.r, layer.in_features), (layer.out_features, self.r)) for layer in self.layers]
        return [shape for pair in pairs for shape in pair] + [(self.hidden_size,), (1,)]

    @property
    def sizes(self) -> list[int]:
        """Number of elements of every piece, in the order of `shapes`."""
        return [torch.Size(shape).numel() for shape in self.shapes]

    @property
    def size(self) -> int:
        """Length n of theta."""
        return sum(self.sizes)

    @property
    def head_size(self) -> int:
        """Length of the value head, weight and bias, at the end of theta."""
        return sum(self.sizes[-2:])

    def split(self, theta_KN: Tensor) -> list[Tensor]:
        """Return views of [K, n] vectors, one [K, *shape] per piece, in the order of `shapes`."""
        pieces = torch.split(theta_KN, self.sizes, dim=1)
        return [piece.view(-1, *shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


def init_adapter(layout: AdapterLayout, seed: int) -> Tensor:
    """Return a fresh theta [n], float32 on the CPU: a pure function of the layout and the seed.

    A is uniform in (-1/sqrt(in), 1/sqrt(in)), which is PEFT's Kaiming-uniform with a = sqrt(5); B and the value head
    are zero, so a fresh adapter is the base model and a fresh value is 0.
    """
    theta = torch.zeros(layout.size)
    pieces = layout.split(theta.unsqueeze(0))
    for index, layer in enumerate(layout.layers):
        a = pieces[2 * index][0]
        u = noise.uniform(seed, "lora_A", index, torch.arange(a.numel()))
        a.copy_(((2 * u - 1) / layer.in_features**0.5).view_as(a))
    return theta


class AdapterStack:
    """K adapters as leaves of autograd: `a[i]` [K, r, in], `b[i]` [K, out, r], and the value heads.

    The leaves are views of one [K, n] tensor. With `requires_grad` they accumulate gradients over several backward
    passes; `grads` returns these in the layout of theta.
    """

    def __init__(self, layout: AdapterLayout, theta_KN: Tensor, requires_grad: bool) -> None:
        self.layout = layout
        self.requires_grad = requires_grad
        self._leaves = [piece.detach().requires_grad_(requires_grad) for piece in layout.split(theta_KN)]
        self.a: list[Tensor] = self._leaves[0:-2:2]
        self.b: list[Tensor] = self._leaves[1:-2:2]
        self.value_weight, self.value_bias = self._leaves[-2:]

    @classmethod
    def of(cls, layout: AdapterLayout, thetas: Sequence[Tensor], requires_grad: bool = False) -> AdapterStack:
        """Stack copies of K vectors [n], as float32: later changes of the vectors do not change the stack."""
        return cls(layout, torch.stack([theta.detach().float() for theta in thetas]), requires_grad)

    def __len__(self) -> int:
        return self.value_bias.shape[0]

    def grads(self) -> Tensor:
        """Return the gradients accumulated so far, [K, n]; zero for a leaf without one."""
        grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self._leaves]
        return torch.cat([grad.flatten(1) for grad in grads], dim=1)


def save_adapter(layout: AdapterLayout, peft_config: LoraConfig, theta: Tensor, folder: str | Path) -> None:
    """Write theta [n] as a PEFT adapter (`PeftModel.from_pretrained` loads it), and the value head in a second file.

    Each file is written to a temporary folder and moved into place, so no incomplete file has its final name.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    *pieces, weight, bias = (piece[0].contiguous() for piece in layout.split(theta.detach().cpu().unsqueeze(0)))
    keys = [key for layer in layout.layers for key in _peft_keys(layer)]
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        peft_config.save_pretrained(aside)
        matrices = save(dict(zip(keys, pieces, strict=True)), metadata={"format": "pt"})
        # Written by Python, because safetensors' writer hides the system's error, such as a full disk.
        Path(aside, "adapter_model.safetensors").write_bytes(matrices)
        Path(aside, "value_head.safetensors").write_bytes(save({"weight": weight, "bias": bias}))
        for file in Path(aside).iterdir():
            os.replace(file, folder / file.name)


def load_adapter(layout: AdapterLayout, folder: str | Path) -> Tensor:
    """Read a PEFT LoRA adapter as theta [n], float32 on the CPU. The value head is zero if its file is missing.

    Raises:
        UserError: the folder holds no plain LoRA adapter, or one of another shape, rank or scaling.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise UserError(f"no adapter in {folder}: expected adapter_config.json and adapter_model.safetensors")
    rank, scaling = _plain_lora(folder / "adapter_config.json")
    if (rank, scaling) != (layout.r, layout.scaling):
        raise UserError(
            f"the adapter in {folder} has rank {rank} and scaling {scaling:g}, the backbone rank {layout.r} and "
            f"scaling {layout.scaling:g}: set r and alpha of the backbone's lora as in {folder / 'adapter_config.json'}"
        )
    stored = _tensors(folder / "adapter_model.safetensors")
    if (folder / "value_head.safetensors").is_file():
        stored |= {f"value.{key}": value for key, value in _tensors(folder / "value_head.safetensors").items()}
    else:
        stored |= {"value.weight": torch.zeros(layout.hidden_size), "value.bias": torch.zeros(1)}
    keys = [key for layer in layout.layers for key in _peft_keys(layer)] + ["value.weight", "value.bias"]
    wanted = dict(zip(keys, layout.shapes, strict=True))
    found = {key: tuple(value.shape) for key, value in stored.items()}
    if found != wanted:
        odd = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        raise UserError(
            f"the adapter in {folder} does not fit this backbone ({len(odd)} tensors differ, first {odd[0]}: "
            f"stored {found.get(odd[0], 'not at all')}, wanted {wanted.get(odd[0], 'not at all')}): "
            "load it on the model and with the target_modules it was trained with"
        )
    return torch.cat([stored[key].float().flatten() for key in keys])


PLAIN = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "trainable_token_indices": (None, []),
    "fan_in_fan_out": (False, None),
}
"""Field of adapter_config.json -> the values that a plain LoRA adapter (two matrices per layer) may have."""


def _plain_lora(path: Path) -> tuple[int, float]:
    """Return rank and scaling of a stored adapter. Raises `UserError` for anything but a valid plain LoRA."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        kind, rank, alpha = table["peft_type"], table["r"], table["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} describes no adapter: {type(error).__name__}: {str(error)[:200]}") from error
    if kind != "LORA":
        raise UserError(f"{path} describes a {kind} adapter: only LoRA can be loaded")
    sound = type(rank) is int and rank > 0 and type(alpha) in (int, float) and 0 < alpha < math.inf
    if not sound:
        raise UserError(f"{path}: r = {rank!r} and lora_alpha = {alpha!r} must be numbers above 0")
    for field, usual in PLAIN.items():
        if table.get(field) not in usual:
            raise UserError(
                f"{path}: {field} = {table[field]!r} is not supported: merge the adapter into its base first"
            )
    return rank, alpha / (rank**0.5 if table.get("use_rslora") else rank)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own exceptions: a truncated file, a pickle
        raise UserError(f"{path} cannot be read as safetensors: {str(error)[:200]}") from error


def _peft_keys(layer: AdaptedLayer) -> list[str]:
    return [f"base_model.model.{layer.name}.lora_{side}.weight" for side in "AB"]
