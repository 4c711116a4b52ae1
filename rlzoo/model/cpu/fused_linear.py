"""Linear layers that read the same input: where weights are held and no gradient is asked for, one product for all.

    (y_1, y_2, ..) = [W_1; W_2; ..] x,      each y_i with the adapter of its own layer, if they have any

For few rows, while decoding, a call costs as much as its product. Where only some of the layers have adapters, each
makes its own, as weights of single adapters would be made for the others, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from rlzoo.model.multi_lora import FleetLinear, active, product


class JoinedLinear:
    """n linear layers that read the same input. Attributes, see `fleet_linear.Adapted`."""

    def __init__(self, layers: Sequence[FleetLinear]) -> None:
        self.layers, self.switch = layers, layers[0].switch
        self.name = ", ".join(layer.name for layer in layers)
        self.sizes = [layer.base.out_features for layer in layers]
        """Width of each layer's output."""
        ends = list(accumulate(self.sizes, initial=0))
        self.adapted = tuple(layer.index for layer in layers if layer.index is not None)
        self.columns = [slice(*ends[k : k + 2]) for k in range(len(layers))]
        self._bias = self._join_biases()
        self._alike = len(self.adapted) in (0, len(layers))
        self._joined: Tensor | None = None
        if not any(layer.quantized for layer in layers):  # held in one piece, of which each layer has its part
            self._joined = torch.cat([layer.base.weight for layer in layers]).detach()
            for layer, part in zip(layers, self._joined.split(self.sizes), strict=True):
                layer.base.weight.data = part

    def _join_biases(self) -> Tensor | None:
        biases = [layer.base.bias for layer in self.layers]
        if all(bias is None for bias in biases):
            return None
        like = next(bias for bias in biases if bias is not None)
        parts = [like.new_zeros(size) if bias is None else bias for bias, size in zip(biases, self.sizes, strict=True)]
        return torch.cat(parts).detach()

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each layer, without gradient."""
        if self._joined is None or not self._alike:
            return tuple(layer(x) for layer in self.layers)
        plan, adapters = active(self, x)
        return product(x, self, plan, *adapters).split_with_sizes(self.sizes, dim=-1)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weights [out of all, in], for products with activations of this dtype."""
        assert self._joined is not None
        return self._joined.to(dtype)

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """Return the biases [out of all], if any layer has one."""
        return None if self._bias is None else self._bias.to(dtype)

    def hold_dequantized(self, hold: bool) -> None:
        """Join the weights that quantized layers hold at present; or let go of them."""
        if all(layer.quantized for layer in self.layers):
            held = [layer.held.t() for layer in self.layers if layer.held is not None]
            joined = torch.cat(held, dim=1) if len(held) > 1 else held[0] if held else None
            self._joined = None if joined is None else joined.t()
