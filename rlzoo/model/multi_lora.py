"""One frozen linear layer, many adapters: each row of the batch uses the adapter of its own run.

    y_b = W x_b + s B_k h_b,      h_b = A_k x_b                    k = slot_b, the row's run; s the scaling
    dx_b = W^T g_b + A_k^T u_b,   u_b = s B_k^T g_b                g_b the gradient of y_b
    dA_k = sum_b u_b x_b^T        dB_k = s sum_b g_b h_b^T         over the rows of run k; W is frozen and shared

A_k, B_k and their products are float32. No operation mixes rows of different runs, forward or backward, so a NaN in one
run stays in that run. The gradient is written by hand: autograd would need twice as many operations and copies, and
would keep a dequantized copy of every 4-bit weight, which is recomputed here.

Merging: in a small model, if each adapter has many rows, or few rows in many batches (decoding), x_b is multiplied by
the sum W + s B_k A_k. A batched product with one weight per adapter takes no longer than one with W, and the two
products with A and B are saved.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlzoo.model.adapters import AdapterStack

MERGE_ROWS = 64
"""Rows per adapter from which merging is faster."""
MERGE_ROWS_DECODING = 8
"""The same for decoding, where many batches use the merged weight."""
MOST_PADDING = 1.5
"""Merged decoding pads every adapter's rows to the longest block; it is faster up to this ratio of rows."""
MERGED_BYTES = 1 << 26
"""Limit on the merged weights of all adapters and layers: 64 MiB."""


class AdapterSwitch(threading.local):
    """The adapter batch that the layers of one backbone use in this thread; None is the base model."""

    active: AdapterBatch | None = None


class AdapterBatch:
    """The assignment of a batch's rows to the adapters of a stack, computed once per batch.

    Args:
        slot_B: adapter of each row, sorted, so that each adapter's rows are one block; -1 is the base model.
        packed: the rows are the tokens of one packed sequence [1, B]; otherwise they are whole sequences [B, T].
        decoding: many batches will use the same adapters, with one token per row.
        before: an earlier batch; if it has the same adapters of the same stack, its merged weights are reused.

    Blocks of unequal length are padded to the longest by repeating each block's last row.

    Raises:
        ValueError: slots are not sorted, or not in the stack.
    """

    def __init__(
        self,
        stack: AdapterStack,
        slot_B: Tensor,
        packed: bool = False,
        decoding: bool = False,
        before: AdapterBatch | None = None,
    ) -> None:
        slot_B = slot_B.cpu()
        if (slot_B.diff() < 0).any():
            raise ValueError("rows must be sorted by slot")
        if len(slot_B) and not -1 <= slot_B[0] <= slot_B[-1] < len(stack):
            raise ValueError(f"slots {slot_B[0]}..{slot_B[-1]} for a stack of {len(stack)} adapters")
        self.stack = stack
        self.rows = len(slot_B)
        self.packed = packed
        self.bare = int((slot_B < 0).sum())
        present, count = slot_B[self.bare :].unique_consecutive(return_counts=True)
        self.blocks = len(present)
        device = stack.value_bias.device
        self._present = None if self.blocks == len(stack) else present.to(device)
        self._pad = self._unpad = None
        if self.blocks and count.min() < count.max():
            column = torch.arange(int(count.max()))
            start = count.cumsum(0) - count
            self._pad = (start[:, None] + torch.minimum(column, count[:, None] - 1)).flatten().to(device)
            self._unpad = (column < count[:, None]).flatten().nonzero().squeeze(1).to(device)
        self._slots = present.tolist()
        self.merges = self._may_merge(decoding and device.type == "cpu" and not stack.requires_grad)
        reuse = before is not None and before.stack is stack and before._slots == self._slots
        self._chosen: dict[int, tuple[Tensor, Tensor]] = before._chosen if before and reuse else {}
        self._merged: dict[str, Tensor] = before._merged if before and reuse and self.merges else {}

    def adapters(self, index: int) -> tuple[Tensor, Tensor]:
        """Return A [blocks, r, in] and B [blocks, out, r] of a layer, for the adapters in the batch."""
        if self.stack.requires_grad:  # not cached: autograd frees the graph after one backward pass
            return self._choose(index)
        if index not in self._chosen:
            self._chosen[index] = self._choose(index)
        return self._chosen[index]

    def _choose(self, index: int) -> tuple[Tensor, Tensor]:
        a, b = self.stack.a[index], self.stack.b[index]
        return (a, b) if self._present is None else (a.index_select(0, self._present), b.index_select(0, self._present))

    def _may_merge(self, decoding: bool) -> bool:
        """Whether to merge: a single adapter without gradient, or enough rows per adapter in equal numbers (decoding:
        in about equal numbers). Never with rows of the base model, and never beyond `MERGED_BYTES`."""
        elements = self.blocks * sum(layer.in_features * layer.out_features for layer in self.stack.layout.layers)
        if not self.blocks or self.bare or 4 * elements > MERGED_BYTES:
            return False
        single = self.blocks == 1 and not self.stack.requires_grad
        padded = self.rows if self._pad is None else len(self._pad)
        if decoding:
            return single or (padded <= MOST_PADDING * self.rows and self.rows >= MERGE_ROWS_DECODING * self.blocks)
        return single or (padded == self.rows and self.rows >= MERGE_ROWS * self.blocks)

    def merged(self, layer: MultiLoraLinear, a: Tensor, b: Tensor) -> Tensor:
        """Return (W + s B A)^T [blocks, in, out] of a layer, float32; computed once per layer."""
        if layer.name not in self._merged:
            w = layer.dequantized(torch.float32).mT
            own = w.new_empty(self.blocks, *w.shape).copy_(w)
            self._merged[layer.name] = own.baddbmm_(a.mT, b.mT, alpha=self.stack.layout.scaling)
        return self._merged[layer.name]

    def multiply_merged(self, x: Tensor, own: Tensor, bias: Tensor | None) -> Tensor:
        """Return each adapter's rows times its merged weight [blocks, in, out], plus the bias."""
        x_KMI = self.split(x)
        y = torch.bmm(x_KMI, own) if bias is None else torch.baddbmm(bias, x_KMI, own)
        if self._pad is not None and self._unpad is not None:
            y = y.view(len(self._pad), -1).index_select(0, self._unpad)
        return y.view(*x.shape[:-1], own.shape[2])

    def check(self, x: Tensor, name: str) -> None:
        """Raise `ValueError` unless a layer's input has exactly the rows of this batch."""
        if x.dim() < 2 or (x.shape[0] != self.rows if not self.packed else x.shape[:2] != (1, self.rows)):
            raise ValueError(
                f"{name} received {tuple(x.shape)} for a batch of {self.rows} rows. Its input is not whole rows, so it "
                "cannot have an adapter per row: leave it out of target_modules"
            )

    def split(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Return the adapted rows of x as float32 [blocks, M, width]. Shorter blocks are padded with their last row, or
        with zeros if not `repeat`."""
        width = x.shape[-1]
        if self.bare:
            x = x.reshape(self.rows, -1)[self.bare :]
        if self._pad is not None and self._unpad is not None:
            x = x.reshape(self.rows - self.bare, -1)
            if repeat:
                x = x.index_select(0, self._pad)
            else:
                x = x.new_zeros((len(self._pad), x.shape[1])).index_copy_(0, self._unpad, x)
        return x.reshape(self.blocks, -1, width).float()

    def add_(self, y: Tensor, h: Tensor, matrix: Tensor, factor: float = 1.0) -> None:
        """Add factor * h [blocks, M, r] @ matrix [blocks, r, width] to the adapted rows of y, in place."""
        rows = y.view(self.rows, -1)[self.bare :]
        if self._unpad is None and y.dtype == torch.float32:
            blocks = rows.view(self.blocks, -1, y.shape[-1])
            torch.baddbmm(blocks, h, matrix, alpha=factor, out=blocks)
            return
        update = torch.bmm(h, matrix).reshape(-1, rows.shape[1])
        if factor != 1:
            update *= factor
        rows += update if self._unpad is None else update.index_select(0, self._unpad)


class MultiLoraLinear(nn.Module):
    """A frozen linear layer plus the adapters of the active batch.

    Args:
        base: the layer that it replaces.
        name: its name in the model.
        index: its position in the layout; None: no adapter.
        switch: holds the active batch.
    """

    def __init__(self, base: nn.Module, name: str, index: int | None, switch: AdapterSwitch) -> None:
        super().__init__()
        self.base, self.name, self.index, self.switch = base, name, index, switch
        self.held: Tensor | None = None
        """The dequantized weight, if kept."""

    def forward(self, x: Tensor) -> Tensor:
        """Return y of the module docstring for the rows of the active batch; without one, W x + bias."""
        batch, adapter = active(self, x)
        return (_Product.apply if torch.is_grad_enabled() else product)(x, self, batch, *adapter)

    @property
    def quantized(self) -> bool:
        """Whether the weight is stored in 4 bits."""
        return isinstance(self.base, Linear4bit)

    @property
    def weight(self) -> Tensor:
        """The base layer's W in its own layout, without adapters, for model code that reads it."""
        return self.dequantized(self.base.compute_dtype or torch.float32) if self.quantized else self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        return self.base.bias

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return W [out, in] in a dtype."""
        base = self.base
        if self.held is not None:
            return self.held.to(dtype)
        if self.quantized:
            # Never Linear4bit.forward: on a CPU with AVX512-BF16, its first call in eval mode without gradient repacks
            # the weight for a bfloat16 kernel without autograd support, and every later gradient is lost.
            return dequantize_4bit(base.weight, base.weight.quant_state).to(dtype)
        weight = base.weight if isinstance(base, nn.Linear) else base.weight.t()  # Conv1D stores the transpose
        return weight.to(dtype)

    def hold_dequantized(self, hold: bool) -> None:
        """Keep or drop the dequantized weight. Without it, decoding dequantizes for every token."""
        if self.quantized:
            weight = self.base.weight
            # The transpose is contiguous, like the merged weights that are made from it.
            self.held = dequantize_4bit(weight, weight.quant_state).t().contiguous().t() if hold else None


Active = tuple[AdapterBatch | None, tuple[Tensor, ...]]
"""An adapter batch with A and B of one layer; (None, ()) for the base model."""


def active(layer: MultiLoraLinear, x: Tensor) -> Active:
    """Return the active adapter batch and the layer's A and B in it.

    Raises:
        ValueError: x does not have the rows of the batch.
    """
    batch = layer.switch.active
    if batch is None or layer.index is None or batch.blocks == 0:
        return None, ()
    batch.check(x, layer.name)
    return batch, batch.adapters(layer.index)


def product(x: Tensor, layer: MultiLoraLinear, batch: AdapterBatch | None, *adapter: Tensor) -> Tensor:
    """Return y of the module docstring, with the adapter A [blocks, r, in], B [blocks, out, r]; without a batch W x."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    own = _merged(x, layer, batch, adapter)
    if own is not None and batch is not None:
        return batch.multiply_merged(x, own, bias)
    y = F.linear(x, layer.dequantized(x.dtype), bias)
    if batch is not None:
        a, b = adapter
        batch.add_(y, torch.bmm(batch.split(x), a.mT), b.mT, batch.stack.layout.scaling)
    return y


def _merged(
    x: Tensor, layer: MultiLoraLinear, batch: AdapterBatch | None, adapter: tuple[Tensor, ...]
) -> Tensor | None:
    """Return the merged weights [blocks, in, out] if the batch merges, else None."""
    if batch is None or not batch.merges or x.dtype != torch.float32:
        return None
    return batch.merged(layer, *adapter)


def product_backward(
    g: Tensor,
    x: Tensor,
    layer: MultiLoraLinear,
    batch: AdapterBatch | None,
    *adapter: Tensor,
    of_x: bool = True,
    onto: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x (None unless `of_x`), A and B, given the gradient g of `product`.

    The gradient of x is added to `onto` in place if given.
    """
    g = g.contiguous()
    own = _merged(x, layer, batch, adapter)
    if of_x and own is None:
        w, rows = layer.dequantized(g.dtype), g.flatten(0, -2)
        onto = (rows @ w if onto is None else onto.flatten(0, -2).addmm_(rows, w)).view(x.shape)
    if batch is None:
        return (onto,)
    (a, b), scaling = adapter, batch.stack.layout.scaling
    x_KMI, g_KMO = batch.split(x), batch.split(g, repeat=False)
    u = torch.bmm(g_KMO, b).mul_(scaling)
    da = torch.bmm(u.mT, x_KMI)
    db = torch.bmm(torch.bmm(x_KMI, a.mT).mul_(scaling).mT, g_KMO).mT
    if of_x and own is not None:
        into = None if onto is None else onto.view(x_KMI.shape)
        dx = torch.bmm(g_KMO, own.mT) if into is None else torch.baddbmm(into, g_KMO, own.mT, out=into)
        onto = dx.view(x.shape)
    elif of_x and onto is not None:
        batch.add_(onto, u, a)
    return onto, da, db


class _Product(torch.autograd.Function):
    """`product` with `product_backward` as its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: MultiLoraLinear, batch: AdapterBatch | None, *adapter: Tensor) -> Tensor:
        ctx.layer, ctx.batch = layer, batch
        ctx.save_for_backward(x, *adapter)
        return product(x, layer, batch, *adapter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *adapter = ctx.saved_tensors
        of_x = ctx.needs_input_grad[0]
        dx, *found = product_backward(gradients[0], x, ctx.layer, ctx.batch, *adapter, of_x=of_x)
        return dx, None, None, *found
