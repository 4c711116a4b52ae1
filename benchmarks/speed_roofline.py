"""The roofline: the operations that a step needs, and the rate of matrix products on this machine.

    limit = operations / rate        share = limit / measured time

    forward = 2 n (W + R) + 2 a s + 2 T V h          backward = 2 n (W + 2 R) + 4 a s + 2 T V h

for one row whose tokens first + 1 .. last are fed, n of them, with logits for T of them. W and R are the parameters of
linear layers and adapters, a the total width of the attention layers, s = last (last + 1) - first (first + 1), and
V x h the head. Only necessary matrix products count, two operations per multiplication: each prompt once per group and
stage; the head for response tokens only; in the backward pass the gradient with respect to activations, and both
gradients of the adapters. Mean lengths are used, which slightly underestimates attention.

Quantization, padding and all other operations are overhead: they lower the share.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict

from benchmarks.speed_memory import wait_for
from benchmarks.speed_work import Measured, Work
from rlzoo.model.backbone import Backbone

SQUARE = 2048
"""Rows and columns of the large product."""
TRIES, ENOUGH_S = 3, 0.02
STAGES = ("prefill", "decode", "score", "forward", "backward")
"""Stages that multiply matrices."""


class Sizes(BaseModel):
    """Sizes that determine the operations. `linear`: (inputs, outputs) of each adapted layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear: list[tuple[int, int]]
    r: int
    attention: int
    """Heads x head width, summed over the layers."""
    hidden: int
    vocabulary: int

    @classmethod
    def of(cls, backbone: Backbone) -> Sizes:
        """Return the sizes of a backbone."""
        text = backbone.model.config.get_text_config()
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            linear=[(layer.in_features, layer.out_features) for layer in backbone.layout.layers],
            r=backbone.layout.r,
            attention=text.num_attention_heads * width * text.num_hidden_layers,
            hidden=backbone.hidden_size,
            vocabulary=backbone.vocab_size,
        )

    @property
    def base(self) -> int:
        """Parameters of the linear layers."""
        return sum(inputs * outputs for inputs, outputs in self.linear)

    @property
    def adapters(self) -> int:
        """Parameters of the adapters."""
        return sum(self.r * (inputs + outputs) for inputs, outputs in self.linear)

    def forward(self, first: float, last: float, heads: float, *, adapted: bool = True) -> float:
        """Return the operations of one row whose tokens first+1 .. last are fed, with logits for `heads` of them."""
        body = 2 * (last - first) * (self.base + self.adapters * adapted)
        attention = 4 * self.attention * (last * (last + 1) - first * (first + 1)) / 2
        return body + attention + 2 * heads * self.vocabulary * self.hidden

    def backward(self, first: float, last: float, heads: float) -> float:
        """Return the operations of the backward pass of `forward(first, last, heads)`."""
        body = 2 * (last - first) * (self.base + 2 * self.adapters)
        attention = 4 * self.attention * (last * (last + 1) - first * (first + 1))
        return body + attention + 2 * heads * self.vocabulary * self.hidden


def operations(sizes: Sizes, work: Work, measured: Measured) -> dict[str, float]:
    """Return the operations of each stage over the timed steps of all runs."""
    p, t = measured.prompt_tokens, measured.tokens_sampled / measured.samples
    n, rows = p + t - 1, measured.samples
    groups = rows / work.group_size
    return {
        "prefill": groups * sizes.forward(0, p, 1),
        "decode": rows * sizes.forward(p, n, t - 1),
        "score": groups * sizes.forward(0, p, 0, adapted=False) + rows * sizes.forward(p, n, t, adapted=False),
        "forward": groups * sizes.forward(0, p, 0) + rows * sizes.forward(p, n, t),
        "backward": groups * sizes.backward(0, p, 0) + rows * sizes.backward(p, n, t),
    }


class RatesWork(BaseModel):
    """Rates to measure: a large square product, and the model's products with each stage's number of tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: Work
    tokens: dict[str, int]
    """Stage -> rows of its matrix products."""

    @property
    def threads(self) -> int:
        """Threads of the work."""
        return self.work.threads


class Rates(BaseModel):
    """Operations per second of the large product and of the model's products by stage; and the model's sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: Sizes
    dtype: str
    square: float
    own: dict[str, float]


def stage_tokens(work: Work, measured: Measured) -> dict[str, int]:
    """Return the rows of the matrix products of each stage, all runs together, in one forward pass."""
    p, t = measured.prompt_tokens, measured.tokens_sampled / measured.samples
    rows = work.runs * work.rows

    def one_pass(rows: float) -> int:
        return max(1, round(min(rows * (p / work.group_size + t - 1), work.micro_batch_tokens)))

    update = one_pass(rows / work.minibatches)
    prefill = max(1, round(rows / work.group_size * p))
    return {"prefill": prefill, "decode": rows, "score": one_pass(rows), "forward": update, "backward": update}


def measure_rates(asked: RatesWork) -> Rates:
    """Time matrix products on the work's device and in its dtype, with the library that the engine uses."""
    backbone = Backbone.load(asked.work.backbone)
    sizes, device, dtype = Sizes.of(backbone), backbone.device, backbone.dtype
    shapes = Counter(sizes.linear)
    weights = {shape: torch.randn(shape, device=device, dtype=dtype) for shape in shapes}
    own = {tokens: own_rate(shapes, weights, tokens) for tokens in sorted(set(asked.tokens.values()))}
    x = torch.randn((SQUARE, SQUARE), device=device, dtype=dtype)
    square = 2 * SQUARE**3 / best_seconds(lambda: torch.mm(x, x), device)
    return Rates(
        sizes=sizes,
        dtype=str(dtype).removeprefix("torch."),
        square=square,
        own={stage: own[tokens] for stage, tokens in asked.tokens.items()},
    )


def own_rate(shapes: Counter[tuple[int, int]], weights: dict[tuple[int, int], torch.Tensor], tokens: int) -> float:
    """Return the rate of the products of all linear layers with `tokens` rows."""
    seconds = 0.0
    for shape, count in shapes.items():
        weight = weights[shape]
        x = torch.randn((tokens, shape[0]), device=weight.device, dtype=weight.dtype)
        seconds += count * best_seconds(lambda x=x, weight=weight: torch.mm(x, weight), weight.device)
    return 2 * tokens * sum(count * inputs * outputs for (inputs, outputs), count in shapes.items()) / seconds


def best_seconds(product: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call: the smallest of a few averages, each over `ENOUGH_S` seconds."""
    product()
    best = float("inf")
    for _ in range(TRIES):
        calls = 0
        wait_for(device)
        start = now = time.perf_counter()
        while now - start < ENOUGH_S:
            for _ in range(10):
                product()
            calls += 10
            wait_for(device)
            now = time.perf_counter()
        best = min(best, (now - start) / calls)
    return best
