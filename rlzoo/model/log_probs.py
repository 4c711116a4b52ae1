"""Log-probs of chosen tokens under the policy, for training and for scoring.

    logp_bt = log softmax(z_bt / temperature)[y_bt],   z_bt = head(h_bt)     h_bt the state before token t of row b

The value at the same position is w_k . h_bt + c_k. Attention sees every token that exists; the output head and the
value head read only the states before learned tokens.

With a vocabulary of 150,000, the logits of 4,096 tokens take 2.5 GB, and their softmax and its gradient as much again.
So tokens pass through the head in chunks, and the backward pass recomputes the logits of each chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlzoo.model import profiler
from rlzoo.model.adapters import AdapterStack
from rlzoo.model.backbone import Backbone
from rlzoo.model.packing import PackedBatch, pad_left, up_to_last

CHUNK_ELEMENTS = 1 << 24
"""Logits in one chunk: 64 MiB of float32."""


@dataclass(frozen=True)
class ForwardOutput:
    """The model's outputs for B rows: float32 [B, T], exactly 0 outside learned tokens, with gradient if enabled."""

    logp_BT: Tensor
    value_BT: Tensor | None
    entropy_BT: Tensor | None
    collision_BT: Tensor | None = None


class Rows(NamedTuple):
    """B rows to score, on the backbone's device; see `policy_forward`."""

    prompts: Sequence[Sequence[int]]
    group_B: Tensor
    token_BT: Tensor
    exists_BT: Tensor
    learn_BT: Tensor


def policy_forward(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    group_B: Tensor,
    token_BT: Tensor,
    exists_BT: Tensor,
    learn_BT: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    value: bool = False,
    entropy: bool = False,
    collision: bool = False,
    packed: bool = True,
) -> ForwardOutput:
    """Score B rows, each as a continuation of its prompt and with its run's adapter.

    Args:
        stack: adapters; None is the reference policy.
        slot_B: adapter of each row in the stack, sorted, -1 for none.
        prompts, group_B: P prompts, and the index of each row's prompt.
        token_BT: int64; positions where `exists_BT` is False are ignored.
        exists_BT: bool, tokens that attention sees; contiguous from the left.
        learn_BT: bool, the existing tokens to score; all of them if not given.
        temperature: one number, or one per row [B].
        value: compute the values too.
        entropy, collision: compute the entropy in nats, and the sum of squared probabilities, of each token's
            distribution at the temperature.
        packed: False pads every row and repeats its prompt, as for models that cannot be packed. The result is the same
            up to rounding.

    Raises:
        ValueError: `exists_BT` has a hole, or `value` is set without a stack.
    """
    if value and stack is None:
        raise ValueError("the reference policy has no value head")
    device = backbone.device
    token_BT, exists_BT = token_BT.to(device), exists_BT.to(device)
    learn_BT = exists_BT if learn_BT is None else learn_BT.to(device) & exists_BT
    if bool((exists_BT[:, 1:] & ~exists_BT[:, :-1]).any()):
        raise ValueError("exists_BT has a hole: tokens must be contiguous from the left; exclude tokens by learn_BT")
    # Only learned positions are computed further, so values at the others, NaN included, cannot reach the loss.
    row_N = learn_BT.nonzero()[:, 0]
    states = _packed_states if packed and backbone.packs else _padded_states
    state_NH = states(backbone, stack, slot_B, Rows(prompts, group_B, token_BT, exists_BT, learn_BT))
    temperature_N = torch.as_tensor(temperature, dtype=torch.float32, device=device).expand(len(learn_BT))[row_N]
    wanted = (entropy, collision)
    logp_N, entropy_N, collision_N = token_log_probs(backbone, state_NH, token_BT[learn_BT], temperature_N, wanted)
    value_N = None
    if value and stack is not None and slot_B is not None:
        slot_N = slot_B.to(device)[row_N]
        weight_NH, bias_N = stack.value_weight.index_select(0, slot_N), stack.value_bias.index_select(0, slot_N)
        value_N = (state_NH.float() * weight_NH).sum(dim=1) + bias_N.view(-1)
    return ForwardOutput(
        *(None if x is None else _spread(x, learn_BT) for x in (logp_N, value_N, entropy_N, collision_N))
    )


def _spread(x_N: Tensor, learn_BT: Tensor) -> Tensor:
    """Scatter the numbers of the learned tokens into [B, T], 0 elsewhere."""
    return torch.zeros(learn_BT.shape, dtype=x_N.dtype, device=x_N.device).masked_scatter(learn_BT, x_N)


def _packed_states(backbone: Backbone, stack: AdapterStack | None, slot_B: Tensor | None, rows: Rows) -> Tensor:
    """Return the states [N, hidden] before the N learned tokens, row after row, from packed rows."""
    slots = torch.zeros(len(rows.group_B), dtype=torch.int64) if slot_B is None else slot_B
    batch = PackedBatch.of(
        rows.prompts, rows.group_B, slots, rows.token_BT, rows.exists_BT, rows.learn_BT, backbone.pad_id
    )
    profiler.count(lambda: batch.real, len(batch.token_N))
    with backbone.adapters(stack, batch.slot_N, packed=True):
        return backbone.packed_states(batch).index_select(0, batch.before_R)


def _padded_states(backbone: Backbone, stack: AdapterStack | None, slot_B: Tensor | None, rows: Rows) -> Tensor:
    """Return the same states as `_packed_states`, from padded rows."""
    # A row's last learned token, and what follows it, predicts no learned token.
    fed_mask_BT = (rows.exists_BT & up_to_last(rows.learn_BT))[:, 1:]
    fed_BT = torch.where(fed_mask_BT, rows.token_BT[:, :-1], backbone.pad_id)
    chosen = [rows.prompts[p] for p in rows.group_B.tolist()]
    prompt_BP, prompt_mask_BP = pad_left(chosen, backbone.pad_id, backbone.device)
    tokens, attention = torch.cat([prompt_BP, fed_BT], dim=1), torch.cat([prompt_mask_BP, fed_mask_BT], dim=1)
    profiler.count(lambda: int(attention.sum()), attention.numel())
    with backbone.adapters(stack, slot_B):
        return backbone.states(tokens, attention)[:, prompt_BP.shape[1] - 1 :][rows.learn_BT]


def token_log_probs(
    backbone: Backbone, state_NH: Tensor, token_N: Tensor, temperature_N: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the log-prob of each token given its state; as `wanted`, also the entropy in nats of its distribution and
    the sum of squared probabilities. All float32 [N].

    The distribution is softmax(logits / temperature).
    """
    size = max(1, CHUNK_ELEMENTS // backbone.vocab_size)
    chunks = list(zip(*(x.split(size) for x in (state_NH, token_N, temperature_N)), strict=True))
    if len(chunks) > 1 and torch.is_grad_enabled():
        parts = [checkpoint(_chunk, backbone, *chunk, wanted, use_reentrant=False) for chunk in chunks]
    else:
        parts = [_chunk(backbone, *chunk, wanted) for chunk in chunks]
    logp, entropies, collisions = zip(*parts, strict=True)
    entropy, collision = wanted
    return torch.cat(logp), torch.cat(entropies) if entropy else None, torch.cat(collisions) if collision else None


def _chunk(
    backbone: Backbone, state_NH: Tensor, token_N: Tensor, temperature_N: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    entropy, collision = wanted
    logp_NV = (backbone.logits(state_NH) / temperature_N[:, None]).log_softmax(dim=1)
    entropy_N = -(logp_NV.exp() * logp_NV).sum(dim=1) if entropy else None
    collision_N = (2 * logp_NV).exp().sum(dim=1) if collision else None
    return logp_NV.gather(1, token_N[:, None]).squeeze(1), entropy_N, collision_N
