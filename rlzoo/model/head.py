"""Float32 logits from states of any dtype.

    z = scale * cap(W h + b)

A bfloat16 matrix product would round logits of size 16 to steps of 0.125, and with them all log-probs and ratios.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def float32_logits(head: nn.Linear, state: Tensor, config: Any) -> Tensor:
    """Return float32 logits [.., vocabulary] of states [.., hidden].

    `config` is the text model's configuration: Gemma caps its logits, Cohere and Granite scale them.
    """
    if state.dtype == torch.float32:
        logits = head(state)
    else:
        logits = _Product.apply(state.flatten(0, -2), head.weight).view(*state.shape[:-1], -1)
        logits = logits if head.bias is None else logits + head.bias.float()
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = (logits / cap).tanh() * cap
    return logits * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)


class _Product(torch.autograd.Function):
    """x W^T of bfloat16 tensors, accumulated and returned in float32; W is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        if x.is_cuda:
            return torch.mm(x, weight.t(), out_dtype=torch.float32)
        return x.float() @ weight.float().t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0].to(weight.dtype) @ weight, None
