"""Log-probs of chosen tokens under the policy, for training and for scoring.

    logp_bt = log softmax(z_bt / temperature)[y_bt],   z_bt = head(h_bt)     h_bt the state before token t of row b

The value of the same position is w_k . h_bt + c_k. Every token that exists is attended to; head and value see the
states before learned tokens only.

All logits never exist at once: at a vocabulary of 150,000 those of 4,096 tokens are 2.5 GB, their softmax and its
gradient as much again each. Tokens go through the head in chunks, whose logits are computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """What the model says of B rows: float32 [B, T], exactly 0 where nothing is learned, with gradient if enabled."""

    logp_BT: Tensor
    value_BT: Tensor | None
    entropy_BT: Tensor | None
    collision_BT: Tensor | None = None


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
    """Score B rows, each after its prompt and through its own run's adapter.

    Args:
        stack: adapters; None is the reference policy.
        slot_B: adapter of each row in the stack, sorted, -1 for none.
        prompts, group_B: P prompts, and which of them each row continues.
        token_BT: int64; what does not exist is ignored.
        exists_BT: bool, tokens that are attended to; contiguous from the left.
        learn_BT: bool, the tokens among them to score; all of them if not given.
        temperature: one number, or one per row [B].
        value, entropy, collision: whether to compute these; entropy, and the sum of squared probabilities, are those of
            the distribution at the temperature.
        packed: False pads every row and gives it its own copy of its prompt, as for models that cannot be packed. It
            changes nothing but the time.

    Raises:
        ValueError: `exists_BT` has a hole, or a value is asked of the reference policy.
    """
    if value and stack is None:
        raise ValueError("the reference policy has no value head")
    device = backbone.device
    token_BT, exists_BT = token_BT.to(device), exists_BT.to(device)
    learn_BT = exists_BT if learn_BT is None else learn_BT.to(device) & exists_BT
    if bool((exists_BT[:, 1:] & ~exists_BT[:, :-1]).any()):
        raise ValueError("exists_BT has a hole: tokens exist from the left; mark what is not learned from in learn_BT")
    # Only learned positions go on: what stands in the others, and its gradient, cannot get out.
    row_N = learn_BT.nonzero()[:, 0]
    states = _packed_states if packed and backbone.packs else _padded_states
    state_NH = states(backbone, stack, slot_B, prompts, group_B, token_BT, exists_BT, learn_BT)
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
    """Put the numbers of the learned tokens in their places, 0 elsewhere: [B, T]."""
    return torch.zeros(learn_BT.shape, dtype=x_N.dtype, device=x_N.device).masked_scatter(learn_BT, x_N)


def _packed_states(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    group_B: Tensor,
    token_BT: Tensor,
    exists_BT: Tensor,
    learn_BT: Tensor,
) -> Tensor:
    """States [N, hidden] before the N learned tokens, row after row, from packed rows."""
    slots = torch.zeros(len(group_B), dtype=torch.int64) if slot_B is None else slot_B
    batch = PackedBatch.of(prompts, group_B, slots, token_BT, exists_BT, learn_BT, backbone.pad_id)
    profiler.count(lambda: batch.real, len(batch.token_N))
    with backbone.adapters(stack, batch.slot_N, packed=True):
        return backbone.packed_states(batch).index_select(0, batch.before_R)


def _padded_states(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    group_B: Tensor,
    token_BT: Tensor,
    exists_BT: Tensor,
    learn_BT: Tensor,
) -> Tensor:
    """The same states from padded rows."""
    # Neither a row's last learned token nor what comes after it predicts anything that is learned from.
    fed_mask_BT = (exists_BT & up_to_last(learn_BT))[:, 1:]
    fed_BT = torch.where(fed_mask_BT, token_BT[:, :-1], backbone.pad_id)
    chosen = [prompts[p] for p in group_B.tolist()]
    prompt_BP, prompt_mask_BP = pad_left(chosen, backbone.pad_id, backbone.device)
    tokens, attention = torch.cat([prompt_BP, fed_BT], dim=1), torch.cat([prompt_mask_BP, fed_mask_BT], dim=1)
    profiler.count(lambda: int(attention.sum()), attention.numel())
    with backbone.adapters(stack, slot_B):
        return backbone.states(tokens, attention)[:, prompt_BP.shape[1] - 1 :][learn_BT]


def token_log_probs(
    backbone: Backbone, state_NH: Tensor, token_N: Tensor, temperature_N: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Log-prob of each token after its state; as `wanted`, the entropy of the distribution it is from and the sum of
    its squared probabilities; float32 [N].

    The distribution is that of the logits divided by the temperature.
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
