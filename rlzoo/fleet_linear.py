"""One linear layer, many adapters: each row of the batch goes through the adapter of its own run.

    y_b = W x_b + scaling * B_k A_k x_b        k = slot_b

W is frozen and shared; A_k, B_k and their arithmetic are float32. A row never meets another run's adapter, forward or
backward, so a NaN in one run stays in that run.
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn

from rlzoo.lora import AdapterStack


class RowPlan:
    """Which rows belong to which adapter of a stack, worked out once per batch.

    `slot_B` gives each row's adapter, sorted, so that each adapter's rows are one block; -1 is the bare base model.
    When the blocks differ in length, each is padded to the longest by repeating its own last row.
    """

    def __init__(self, stack: AdapterStack, slot_B: Tensor) -> None:
        slot_B = slot_B.cpu()
        if (slot_B.diff() < 0).any():
            raise ValueError("rows must be sorted by slot")
        if len(slot_B) and not -1 <= slot_B[0] <= slot_B[-1] < len(stack):
            raise ValueError(f"slots {slot_B[0]}..{slot_B[-1]} for a stack of {len(stack)} adapters")
        self.stack = stack
        self.rows = len(slot_B)
        self.bare = int((slot_B < 0).sum())
        present, count = slot_B[self.bare :].unique_consecutive(return_counts=True)
        self._blocks = len(present)
        device = stack.value_bias.device
        self._present = None if self._blocks == len(stack) else present.to(device)
        self._pad = self._unpad = None
        if self._blocks and count.min() < count.max():
            column = torch.arange(int(count.max()))
            start = count.cumsum(0) - count
            self._pad = (start[:, None] + torch.minimum(column, count[:, None] - 1)).flatten().to(device)
            self._unpad = (column < count[:, None]).flatten().nonzero().squeeze(1).to(device)
        self._chosen: dict[int, tuple[Tensor, Tensor]] = {}

    def _adapters(self, index: int) -> tuple[Tensor, Tensor]:
        """Return A [blocks, r, in] and B [blocks, out, r] of one layer, for the adapters that occur."""
        a, b = self.stack.a[index], self.stack.b[index]
        if self._present is None:
            return a, b
        if self.stack.requires_grad:  # a graph may be walked only once, so it must not outlive its forward
            return a.index_select(0, self._present), b.index_select(0, self._present)
        if index not in self._chosen:
            self._chosen[index] = a.index_select(0, self._present), b.index_select(0, self._present)
        return self._chosen[index]

    def add(self, y: Tensor, x: Tensor, index: int, name: str) -> Tensor:
        """Return y plus the adapters' update for the input x of layer `index`; x and y have the batch in front."""
        if x.shape[0] != self.rows or x.dim() < 2:
            raise ValueError(
                f"{name} was given {tuple(x.shape)} for a batch of {self.rows} rows: it does not see whole rows, so an "
                "adapter per row is impossible there; leave it out of target_modules"
            )
        if self._blocks == 0:
            return y
        a, b = self._adapters(index)
        dtype, shape, bare = y.dtype, y.shape, self.bare
        x, kept, y = x.float(), y[:bare], y.float()
        x, y = (x[bare:], y[bare:]) if bare else (x, y)
        if self._pad is not None:
            x = x.index_select(0, self._pad)
        h = torch.bmm(x.reshape(self._blocks, -1, x.shape[-1]), a.transpose(1, 2))
        scaling = self.stack.layout.scaling
        if self._unpad is None:
            y = torch.baddbmm(y.reshape(self._blocks, -1, shape[-1]), h, b.transpose(1, 2), alpha=scaling)
            y = y.reshape(-1, *shape[1:])
        else:
            update = torch.bmm(h, b.transpose(1, 2)).reshape(-1, *shape[1:])
            y = y.add(update.index_select(0, self._unpad), alpha=scaling)
        y = y.to(dtype)
        return torch.cat([kept, y]) if bare else y


class AdapterSwitch(threading.local):
    """The plan that the layers of one backbone follow at present, in this thread; None means the bare base model."""

    plan: RowPlan | None = None


class FleetLinear(nn.Module):
    """A frozen linear layer, which adds the adapters of the active plan. `index` None: the layer has no adapter."""

    def __init__(self, base: nn.Module, name: str, index: int | None, switch: AdapterSwitch) -> None:
        super().__init__()
        self.base, self.name, self.index, self.switch = base, name, index, switch
        self._dequantized: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self._base_forward(x)
        plan = self.switch.plan
        return y if plan is None or self.index is None else plan.add(y, x, self.index, self.name)

    def _base_forward(self, x: Tensor) -> Tensor:
        base = self.base
        if isinstance(base, Linear4bit):
            if self._dequantized is not None:
                return F.linear(x, self._dequantized, base.bias)
            # Never Linear4bit.forward: where the CPU has AVX512-BF16, its first call in eval mode without gradient
            # repacks the weight for a bfloat16 kernel that autograd does not know, and every later gradient is cut off.
            return matmul_4bit(x, base.weight, quant_state=base.weight.quant_state, bias=base.bias)
        if isinstance(base, nn.Linear):
            return F.linear(x, base.weight.to(x.dtype), base.bias)
        return base(x)

    def hold_dequantized(self, hold: bool) -> None:
        """Keep the dequantized weight until told otherwise: decoding would rebuild it for every token."""
        if isinstance(self.base, Linear4bit):
            weight = self.base.weight
            self._dequantized = dequantize_4bit(weight, weight.quant_state) if hold else None
