"""Log-probs of given responses under the policy, for training and for scoring.

    logp_bt = log softmax(z_bt / temperature)[y_bt],   z_bt the logits after the prompt and y_b1 .. y_b,t-1

The value of the same position, w_k . h_bt + c_k, reads the hidden state the head reads: the state before token t.

Prompts may be shared: the responses to one prompt follow the same keys and values, which are then computed once per
prompt instead of once per response, forward and backward. Head and value see the real tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo import stages
from rlzoo.backbone import Backbone
from rlzoo.head import token_log_probs
from rlzoo.lora import AdapterStack


@dataclass(frozen=True)
class ForwardOutput:
    """What the model says of a batch of responses; float32, with gradient where there is one, 0 outside the mask."""

    logp_BT: Tensor
    value_BT: Tensor | None
    entropy_BT: Tensor | None


def policy_forward(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompt_tokens: Sequence[Sequence[int]],
    response_BT: Tensor,
    mask_BT: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    value: bool = False,
    entropy: bool = False,
    share_prompts: bool = False,
) -> ForwardOutput:
    """Score B responses, each after its own prompt and through its own run's adapter.

    slot_B: adapter of each row in the stack, sorted; stack None is the reference policy. mask_BT: bool, the real
    tokens, from the left; what stands outside it in response_BT is ignored. temperature: one number or one per row [B].
    `value` and `entropy` (of the tempered distribution) are computed on request only. `share_prompts` computes a prompt
    that rows of one adapter share (the same list object) once; it changes nothing but the time.
    """
    if value and stack is None:
        raise ValueError("the reference policy has no value head")
    device = backbone.device
    response_BT, mask_BT = response_BT.to(device), mask_BT.to(device)
    # The last response token predicts nothing that is asked for, so it is not fed.
    fed_BT, fed_mask_BT = torch.where(mask_BT, response_BT, backbone.pad_id)[:, :-1], mask_BT[:, :-1]
    states = _states_after_shared if share_prompts else _states
    state_BTH = states(backbone, stack, slot_B, prompt_tokens, fed_BT, fed_mask_BT)
    # Only real tokens go on: whatever stands in the others, neither it nor its gradient gets out.
    row_N = mask_BT.nonzero()[:, 0]
    state_NH = state_BTH[mask_BT]
    temperature_N = torch.as_tensor(temperature, dtype=torch.float32, device=device).expand(len(mask_BT))[row_N]
    logp_N, entropy_N = token_log_probs(backbone, state_NH, response_BT[mask_BT], temperature_N, entropy)
    value_N = None
    if value and stack is not None and slot_B is not None:
        slot_N = slot_B.to(device)[row_N]
        weight_NH, bias_N = stack.value_weight.index_select(0, slot_N), stack.value_bias.index_select(0, slot_N)
        value_N = (state_NH.float() * weight_NH).sum(dim=1) + bias_N.view(-1)
    return ForwardOutput(*(None if x is None else _spread(x, mask_BT) for x in (logp_N, value_N, entropy_N)))


def _spread(x_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Put the numbers of the real tokens in their places, 0 elsewhere: [B, T]."""
    return torch.zeros(mask_BT.shape, dtype=x_N.dtype, device=x_N.device).masked_scatter(mask_BT, x_N)


def _states(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    fed_BT: Tensor,
    fed_mask_BT: Tensor,
) -> Tensor:
    """States [B, T, hidden] before each response token: every row with its own copy of its prompt."""
    prompt_BP, prompt_mask_BP = pad_left(prompts, backbone.pad_id, backbone.device)
    tokens, attention = torch.cat([prompt_BP, fed_BT], dim=1), torch.cat([prompt_mask_BP, fed_mask_BT], dim=1)
    _count(attention)
    with backbone.adapters(stack, slot_B):
        return backbone.states(tokens, attention)[:, prompt_BP.shape[1] - 1 :]


def _states_after_shared(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    fed_BT: Tensor,
    fed_mask_BT: Tensor,
) -> Tensor:
    """The same states, with the U different prompts computed once: their keys and values are given to their rows."""
    slots = [-1] * len(prompts) if slot_B is None else slot_B.tolist()
    row_of: dict[tuple[int, int], int] = {}  # (adapter, prompt) -> the first row with it; rows stay sorted by adapter
    for row, key in enumerate(zip(slots, map(id, prompts), strict=True)):
        row_of.setdefault(key, row)
    place_of = {key: place for place, key in enumerate(row_of)}
    place_B = torch.tensor([place_of[key] for key in zip(slots, map(id, prompts), strict=True)])
    first_U = torch.tensor(list(row_of.values()))
    prompt_UP, prompt_mask_UP = pad_left([prompts[b] for b in first_U.tolist()], backbone.pad_id, backbone.device)
    cache = backbone.new_cache(decoding=False)
    _count(prompt_mask_UP, fed_mask_BT)
    with backbone.adapters(stack, None if slot_B is None else slot_B.cpu()[first_U]):
        last_UH = backbone.states(prompt_UP, prompt_mask_UP, cache)[:, -1]
    place_B = place_B.to(backbone.device)
    before_B1H = last_UH.index_select(0, place_B).unsqueeze(1)
    if fed_BT.shape[1] == 0:
        return before_B1H
    cache.reorder_cache(place_B)
    attention = torch.cat([prompt_mask_UP[place_B], fed_mask_BT], dim=1)
    with backbone.adapters(stack, slot_B):
        return torch.cat([before_B1H, backbone.states(fed_BT, attention, cache)], dim=1)


def _count(*masks: Tensor) -> None:
    """Tell whoever watches how much of a pass is padding."""
    stages.count(lambda: sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks))


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the prompts as one int64 tensor [B, P], padded on the left, and the bool mask [B, P] of what is real."""
    length_B = torch.tensor([len(prompt) for prompt in prompts])
    width = int(length_B.max())
    mask_BP = torch.arange(width) >= width - length_B[:, None]
    tokens_BP = torch.full(mask_BP.shape, pad_id)
    tokens_BP[mask_BP] = torch.tensor([token for prompt in prompts for token in prompt])
    return tokens_BP.to(device), mask_BP.to(device)
