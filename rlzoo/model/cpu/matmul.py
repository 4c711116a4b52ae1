"""Float32 matrix products by oneDNN, where it is as exact as torch's default on a CPU, which is MKL.

On processors that are not Intel's, MKL uses half of their vector width: 117 GFLOP/s against oneDNN's 265 on one core of
an AMD EPYC with AVX-512. torch hands float32 products to oneDNN only together with the permission to round their
factors to bfloat16, of which oneDNN makes use where a processor has matrix units for it. So a trial decides, once per
process: unless float32's accuracy is kept, everything stays as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor

FROM_ROWS = 64
"""Rows of a product from which oneDNN is the faster one, and"""
FROM_OPERATIONS = 4e6
"""multiplications and additions: its calls take 15 microseconds longer."""
WIDE = 512
"""Hidden size from which a model's products are worth several threads: at 128, two are a fifth slower than one."""
SAME_SHAPE = 32
"""oneDNN compiles each new shape, 0.1 ms: where numbers of rows may be anything, they are made multiples of this."""
# What is kept of compiled shapes, read by oneDNN and by torch's layer above it when they are first used: with their own
# 1024 each, a process holds 0.5 MB for every shape that ever was. One run alone has 32; those of a pass are about 20.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
os.environ.setdefault("LRU_CACHE_CAPACITY", "4")
SETTINGS, UNCHANGED = torch.backends.mkldnn.matmul, nullcontext()


def usual(rows: int) -> int:
    """Return so many rows, or a few more where products of that many rows are compiled for their shape."""
    return -(-rows // SAME_SHAPE) * SAME_SHAPE if rows >= FROM_ROWS else rows


def fast(rows: int, operations: float, device: torch.device) -> AbstractContextManager[None]:
    """Within: float32 products of so many rows and operations are made by whichever library is faster at them."""
    large = rows >= FROM_ROWS and operations >= FROM_OPERATIONS
    return _OneDNN() if large and device.type == "cpu" and onednn_is_exact() else UNCHANGED


def bmm(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """`torch.bmm` by the faster library."""
    with fast(x.shape[0] * x.shape[1], 2 * x.numel() * y.shape[2], x.device):
        return torch.bmm(x, y, out=out)


def baddbmm(start: Tensor, x: Tensor, y: Tensor, alpha: float = 1.0, out: Tensor | None = None) -> Tensor:
    """`torch.baddbmm` by the faster library."""
    with fast(x.shape[0] * x.shape[1], 2 * x.numel() * y.shape[2], x.device):
        return torch.baddbmm(start, x, y, alpha=alpha, out=out)


@contextmanager
def threads(width: int, device: torch.device) -> Iterator[None]:
    """Within: one thread per product, for a model so narrow that waiting for others takes longer than it saves."""
    before = torch.get_num_threads()
    if device.type == "cpu" and width < WIDE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _OneDNN:
    """Within: torch has the permission. A class, as `contextmanager` takes twice as long, for every product."""

    def __enter__(self) -> None:
        self.before = SETTINGS.fp32_precision
        SETTINGS.fp32_precision = "bf16"

    def __exit__(self, *_: object) -> None:
        SETTINGS.fp32_precision = self.before


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN's float32 products are about as far from float64's as the default ones are, in a trial."""
    if not torch.backends.mkldnn.is_available():
        return False
    numbers = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 192, 192, generator=numbers) for _ in range(2))
    exact = x.double() @ y.double()
    default = (x @ y - exact).square().mean()
    with _OneDNN():
        return bool((x @ y - exact).square().mean() < 4 * default)
