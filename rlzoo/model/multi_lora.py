"""One linear layer, many adapters: each row of the batch goes through the adapter of its own run.

    y_b = W x_b + s B_k h_b,      h_b = A_k x_b                    k = slot_b, the row's run; s the scaling
    dx_b = W^T g_b + A_k^T u_b,   u_b = s B_k^T g_b                g_b the gradient of y_b
    dA_k = sum_b u_b x_b^T        dB_k = s sum_b g_b h_b^T         over the rows of run k; W is frozen and shared

A_k, B_k and their arithmetic are float32. A row never meets another run's adapter, forward or backward, so a NaN in one
run stays in that run. The gradient is written out rather than left to autograd: half as many operations, none of which
makes a copy, and a 4-bit weight is rebuilt instead of kept.

Where each adapter has many rows, or some for many tokens (decoding), and the model is small, x_b meets W + s B_k A_k at
once, forward and backward: a batched product with a weight per adapter takes no longer than one with W, and the
adapters' own products are saved. In bfloat16, while decoding, what the adapters of several layers add is one product.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlzoo.model.adapters import AdapterStack
from rlzoo.model.cpu import matmul

MERGE_ROWS = 64
"""Rows per adapter from which its own weight is worth making, and reading instead of a shared one; and"""
MERGE_ROWS_OFTEN = 8
"""from which it is if many batches go through it."""
MOST_PADDING = 1.5
"""Rows of blocks that are padded to the longest, over those that there are, up to which padding is worth it."""
MERGED_BYTES = 1 << 26
"""Most that all adapters' own weights may take, of each layer once: 64 MiB."""
JOINED_BYTES = 1 << 31
"""Most that what `RowPlan.joined` makes of all layers may take: 2 GiB."""


class AdapterSwitch(threading.local):
    """The plan that the layers of one backbone follow at present, in this thread; None means the bare base model."""

    plan: RowPlan | None = None


class Adapted(Protocol):
    """A frozen linear layer, or several of the same input as one, that adapters may add to."""

    name: str
    switch: AdapterSwitch

    @property
    def adapted(self) -> tuple[int, ...]:
        """Places of its adapters in the stack; none if it has none."""
        ...

    @property
    def columns(self) -> list[slice]:
        """Which columns of the output each adapter adds to."""
        ...

    def weight(self, dtype: torch.dtype) -> Tensor:
        """W [out, in], for products with activations of this dtype."""
        ...

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """The bias [out], if there is one."""
        ...


class RowPlan:
    """Which rows belong to which adapter of a stack, worked out once per batch.

    `slot_B` gives each row's adapter, sorted, so that each adapter's rows are one block; -1 is the bare base model.
    When the blocks differ in length, each is padded to the longest by repeating its own last row. With `in_line` the
    rows are the tokens of one line [1, B], otherwise whole sequences [B, T]. `often`: many batches will go through it,
    as in decoding. What was made of the adapters for the plan `before`, of the same stack, is used again if they are
    the same.
    """

    def __init__(
        self,
        stack: AdapterStack,
        slot_B: Tensor,
        in_line: bool = False,
        often: bool = False,
        before: RowPlan | None = None,
    ) -> None:
        slot_B = slot_B.cpu()
        if (slot_B.diff() < 0).any():
            raise ValueError("rows must be sorted by slot")
        if len(slot_B) and not -1 <= slot_B[0] <= slot_B[-1] < len(stack):
            raise ValueError(f"slots {slot_B[0]}..{slot_B[-1]} for a stack of {len(stack)} adapters")
        self.stack = stack
        self.rows = len(slot_B)
        self.in_line = in_line
        self.bare = int((slot_B < 0).sum())
        present, count = slot_B[self.bare :].unique_consecutive(return_counts=True)
        self.blocks = len(present)
        self._first = int(present[0]) if self.blocks else -1
        device = stack.value_bias.device
        self._present = None if self.blocks == len(stack) else present.to(device)
        self._pad = self._unpad = None
        if self.blocks and count.min() < count.max():
            column = torch.arange(int(count.max()))
            start = count.cumsum(0) - count
            self._pad = (start[:, None] + torch.minimum(column, count[:, None] - 1)).flatten().to(device)
            self._unpad = (column < count[:, None]).flatten().nonzero().squeeze(1).to(device)
        self._slots = present.tolist()
        self.joins = self._may_join(often)
        self.merges = self._may_merge(often and device.type == "cpu" and not stack.requires_grad)
        same = before is not None and before.stack is stack and before._slots == self._slots
        like = before if same else None
        self._chosen: dict[tuple[int, ...], tuple[Tensor, ...]] = like._chosen if like else {}
        self._merged: dict[str, Tensor] = like._merged if like and self.merges else {}
        self._joined: dict[str, Tensor] = like._joined if like else {}

    def adapters(self, indices: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return A of n layers [blocks, n r, in], and B [blocks, out, r] of each, for the adapters that occur."""
        if self.stack.requires_grad:  # a graph may be walked only once, so it must not outlive its forward
            return self._choose(indices)
        if indices not in self._chosen:
            self._chosen[indices] = self._choose(indices)
        return self._chosen[indices]

    def _choose(self, indices: tuple[int, ...]) -> tuple[Tensor, ...]:
        a, bs = [self.stack.a[index] for index in indices], [self.stack.b[index] for index in indices]
        if self._present is not None:
            a, bs = ([x.index_select(0, self._present) for x in some] for some in (a, bs))
        return (a[0] if len(a) == 1 else torch.cat(a, dim=1)), *bs

    def _may_merge(self, often: bool) -> bool:
        """Whether every adapter that occurs gets a weight of its own: if there is a single one without gradient, or
        equally many rows of each, or about as many where weights are used often, and enough of them."""
        elements = self.blocks * sum(layer.in_features * layer.out_features for layer in self.stack.layout.layers)
        if not self.blocks or self.bare or 4 * elements > MERGED_BYTES:
            return False
        single = self.blocks == 1 and not self.stack.requires_grad
        padded = self.rows if self._pad is None else len(self._pad)
        if often:
            return single or (padded <= MOST_PADDING * self.rows and self.rows >= MERGE_ROWS_OFTEN * self.blocks)
        return single or (padded == self.rows and self.rows >= MERGE_ROWS * self.blocks)

    def _may_join(self, often: bool) -> bool:
        """Whether `joined` is made: for n layers it is n times as large as their B, and n is 3 at most (q, k and v)."""
        elements = 3 * self.blocks * sum(self.stack.layout.r * layer.out_features for layer in self.stack.layout.layers)
        return often and not self.stack.requires_grad and 4 * elements <= JOINED_BYTES

    def merged(self, layer: Adapted, a: Tensor, *bs: Tensor) -> Tensor:
        """Return (W + s B A)^T [blocks, in, out] of a layer, float32; made once. That way round, as it lies in memory,
        oneDNN reads it as it is: products of 64 rows are a quarter faster."""
        if layer.name not in self._merged:
            w = layer.weight(torch.float32).mT
            own = w.new_empty(self.blocks, *w.shape).copy_(w)
            for columns, a_KRI, b in zip(layer.columns, a.chunk(len(bs), dim=1), bs, strict=True):
                own[..., columns].baddbmm_(a_KRI.mT, b.mT, alpha=self.stack.layout.scaling)
            self._merged[layer.name] = own
        return self._merged[layer.name]

    def joined(self, layer: Adapted, *bs: Tensor) -> Tensor:
        """Return s B^T [blocks, n r, out] of a layer that is n layers, which stand on the diagonal; made once."""
        if layer.name not in self._joined:
            r = bs[0].shape[2]
            whole = bs[0].new_zeros(self.blocks, len(bs) * r, sum(b.shape[1] for b in bs))
            for k, (columns, b) in enumerate(zip(layer.columns, bs, strict=True)):
                whole[:, k * r : (k + 1) * r, columns] = self.stack.layout.scaling * b.mT
            self._joined[layer.name] = whole
        return self._joined[layer.name]

    def by_own(self, x: Tensor, own: Tensor, bias: Tensor | None) -> Tensor:
        """Return the products of each adapter's rows with a weight of its own [blocks, in, out]."""
        x_KMI = self.split(x)
        y = matmul.bmm(x_KMI, own) if bias is None else matmul.baddbmm(bias, x_KMI, own)
        if self._unpad is not None:
            y = y.view(len(self._pad), -1).index_select(0, self._unpad)
        return y.view(*x.shape[:-1], own.shape[2])

    def check(self, x: Tensor, name: str) -> None:
        """Raise `ValueError` unless the input of a layer has the rows of this plan."""
        if x.dim() < 2 or (x.shape[0] != self.rows if not self.in_line else x.shape[:2] != (1, self.rows)):
            raise ValueError(
                f"{name} was given {tuple(x.shape)} for a batch of {self.rows} rows: it does not see whole rows, so an "
                "adapter per row is impossible there; leave it out of target_modules"
            )

    def split(self, x: Tensor, repeat: bool = True) -> Tensor:
        """Return x, with the rows in front, as float32 [blocks, M, width], a block per adapter; what a shorter one is
        padded with repeats its last row, or is zero."""
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
        """Add to y, in place, the factor times h [blocks, M, r] times the adapters' matrices [blocks, r, width]."""
        rows = y.view(self.rows, -1)[self.bare :]
        if self._unpad is None and y.dtype == torch.float32:
            blocks = rows.view(self.blocks, -1, y.shape[-1])
            matmul.baddbmm(blocks, h, matrix, alpha=factor, out=blocks)
            return
        update = matmul.bmm(h, matrix).reshape(-1, rows.shape[1])
        if factor != 1:
            update *= factor
        rows += update if self._unpad is None else update.index_select(0, self._unpad)


class FleetLinear(nn.Module):
    """A frozen linear layer, which adds the adapters of the active plan. `index` None: the layer has no adapter."""

    def __init__(self, base: nn.Module, name: str, index: int | None, switch: AdapterSwitch) -> None:
        super().__init__()
        self.base, self.name, self.index, self.switch = base, name, index, switch
        self.held: Tensor | None = None
        """The dequantized weight, while it is kept."""

    def forward(self, x: Tensor) -> Tensor:
        plan, adapter = active(self, x)
        return (_Product.apply if torch.is_grad_enabled() else product)(x, self, plan, *adapter)

    @property
    def quantized(self) -> bool:
        """Whether the weight is held in 4 bits."""
        return isinstance(self.base, Linear4bit)

    @property
    def adapted(self) -> tuple[int, ...]:
        return () if self.index is None else (self.index,)

    @property
    def columns(self) -> list[slice]:
        return [slice(None)]

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        return None if self.base.bias is None else self.base.bias.to(dtype)

    def weight(self, dtype: torch.dtype) -> Tensor:
        base = self.base
        if self.held is not None:
            return self.held.to(dtype)
        if self.quantized:
            # Never Linear4bit.forward: where the CPU has AVX512-BF16, its first call in eval mode without gradient
            # repacks the weight for a bfloat16 kernel that autograd does not know, and every later gradient is cut off.
            return dequantize_4bit(base.weight, base.weight.quant_state).to(dtype)
        weight = base.weight if isinstance(base, nn.Linear) else base.weight.t()  # Conv1D holds it the other way round
        return weight.to(dtype)

    def hold_dequantized(self, hold: bool) -> None:
        """Keep the dequantized weight until told otherwise: decoding would rebuild it for every token."""
        if self.quantized:
            weight = self.base.weight
            # Its transpose lies in memory row by row, as single adapters' weights do, which are made from it.
            self.held = dequantize_4bit(weight, weight.quant_state).t().contiguous().t() if hold else None


def active(layer: Adapted, x: Tensor) -> tuple[RowPlan | None, tuple[Tensor, ...]]:
    """The active plan, which x is checked against, and the layer's adapters under it, as `product` asks for them; none
    for the bare base model."""
    plan = layer.switch.plan
    if plan is None or not layer.adapted or plan.blocks == 0:
        return None, ()
    plan.check(x, layer.name)
    return plan, plan.adapters(layer.adapted)


def product(x: Tensor, layer: Adapted, plan: RowPlan | None, *adapters: Tensor) -> Tensor:
    """Return y for the rows of a plan, through adapters: A [blocks, n r, in] and then each B [blocks, out, r] of n
    layers. Without a plan there are none, and it is the bare base model's."""
    bias = layer.bias(x.dtype)
    own = _own_weight(x, layer, plan, adapters)
    if own is not None and plan is not None:
        return plan.by_own(x, own, bias)
    w = layer.weight(x.dtype)
    with matmul.fast(x.numel() // x.shape[-1], 2 * x.numel() * len(w), x.device):
        y = F.linear(x, w, bias)
    if plan is not None and plan.joins and y.dtype != torch.float32:  # `add_` takes more calls than in float32
        a, *bs = adapters
        plan.add_(y, matmul.bmm(plan.split(x), a.mT), plan.joined(layer, *bs))
    elif plan is not None:
        (a, *bs), x_KMI = adapters, plan.split(x)
        h = matmul.bmm(x_KMI, a.mT).chunk(len(bs), dim=2)
        for columns, h_KMR, b in zip(layer.columns, h, bs, strict=True):
            plan.add_(y[..., columns], h_KMR, b.mT, plan.stack.layout.scaling)
    return y


def _own_weight(x: Tensor, layer: Adapted, plan: RowPlan | None, adapters: Sequence[Tensor]) -> Tensor | None:
    """The weights [blocks, in, out] of a plan's adapters, where they are merged; else None."""
    if plan is None or not plan.merges or x.dtype != torch.float32:
        return None
    return plan.merged(layer, *adapters)


def product_backward(
    g: Tensor,
    x: Tensor,
    layer: FleetLinear,
    plan: RowPlan | None,
    *adapter: Tensor,
    of_x: bool = True,
    onto: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, unless it is not asked for, and of the adapter, for that of what `product` gave.

    That of x is added to `onto`, in place, if there is one.
    """
    g = g.contiguous()
    own = _own_weight(x, layer, plan, adapter)
    if of_x and own is None:
        w, rows = layer.weight(g.dtype), g.flatten(0, -2)
        with matmul.fast(len(rows), 2 * rows.numel() * w.shape[1], g.device):
            onto = (rows @ w if onto is None else onto.flatten(0, -2).addmm_(rows, w)).view(x.shape)
    if plan is None:
        return (onto,)
    (a, b), scaling = adapter, plan.stack.layout.scaling
    x_KMI, g_KMO = plan.split(x), plan.split(g, repeat=False)
    u = matmul.bmm(g_KMO, b).mul_(scaling)
    da = matmul.bmm(u.mT, x_KMI)
    db = matmul.bmm(matmul.bmm(x_KMI, a.mT).mul_(scaling).mT, g_KMO).mT
    if of_x and own is not None:
        into = None if onto is None else onto.view(x_KMI.shape)
        dx = matmul.bmm(g_KMO, own.mT) if into is None else matmul.baddbmm(into, g_KMO, own.mT, out=into)
        onto = dx.view(x.shape)
    elif of_x and onto is not None:
        plan.add_(onto, u, a)
    return onto, da, db


class _Product(torch.autograd.Function):
    """`product` of a single layer, with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FleetLinear, plan: RowPlan | None, *adapter: Tensor) -> Tensor:
        ctx.layer, ctx.plan = layer, plan
        ctx.save_for_backward(x, *adapter)
        return product(x, layer, plan, *adapter)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *adapter = ctx.saved_tensors
        of_x = ctx.needs_input_grad[0]
        dx, *found = product_backward(gradients[0], x, ctx.layer, ctx.plan, *adapter, of_x=of_x)
        return dx, None, None, *found
