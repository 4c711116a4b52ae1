"""Log-probs of chosen tokens from the states before them, without ever holding all logits.

    logp_n = z_n[y_n] - logsumexp(z_n),    z_n = head(h_n) / temperature_n           n: the real tokens of a batch

At a vocabulary of 150,000 the logits of 4,096 tokens are 2.5 GB, their softmax and its gradient as much again each. So
tokens go through the head in chunks; with gradient, a chunk's logits are made anew in the backward pass (torch's
checkpointing), and neither values nor gradients change.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlzoo.model.backbone import Backbone

CHUNK_ELEMENTS = 1 << 24
"""Logits in one chunk: 64 MiB of float32."""


def token_log_probs(
    backbone: Backbone, state_NH: Tensor, token_N: Tensor, temperature_N: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-prob of each token after its state, and on request the entropy of the distribution it is from; float32 [N].

    The distribution is that of the logits divided by the temperature.
    """
    size = max(1, CHUNK_ELEMENTS // backbone.vocab_size)
    chunks = list(zip(*(x.split(size) for x in (state_NH, token_N, temperature_N)), strict=True))
    if len(chunks) > 1 and torch.is_grad_enabled():
        parts = [checkpoint(_chunk, backbone, *chunk, entropy, use_reentrant=False) for chunk in chunks]
    else:
        parts = [_chunk(backbone, *chunk, entropy) for chunk in chunks]
    logp, entropies = zip(*parts, strict=True)
    return torch.cat(logp), torch.cat(entropies) if entropy else None


def _chunk(
    backbone: Backbone, state_NH: Tensor, token_N: Tensor, temperature_N: Tensor, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logp_NV = (backbone.logits(state_NH).float() / temperature_N[:, None]).log_softmax(dim=1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(dim=1) if entropy else None
    return logp_NV.gather(1, token_N[:, None]).squeeze(1), entropy_N
