"""Log-probs of given responses under the policy, for training and for scoring.

    logp_bt = log softmax(z_bt / temperature)[y_bt],   z_bt the logits after the prompt and y_b1 .. y_b,t-1

The value of the same position, w_k . h_bt + c_k, reads the hidden state the head reads: the state before token t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.backbone import Backbone
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
) -> ForwardOutput:
    """Score B responses, each after its own prompt and through its own run's adapter.

    slot_B: adapter of each row in the stack, sorted; stack None is the reference policy. mask_BT: bool, the real
    tokens, from the left; what stands outside it in response_BT is ignored. temperature: one number or one per row [B].
    `value` and `entropy` (of the tempered distribution) are computed on request only.
    """
    if value and stack is None:
        raise ValueError("the reference policy has no value head")
    device, length = backbone.device, response_BT.shape[1]
    response_BT, mask_BT = response_BT.to(device), mask_BT.to(device)
    prompt_BP, prompt_mask_BP = pad_left(prompt_tokens, backbone.pad_id, device)
    safe_BT = torch.where(mask_BT, response_BT, backbone.pad_id)
    # The last response token predicts nothing that is asked for, so it is not fed.
    tokens = torch.cat([prompt_BP, safe_BT[:, :-1]], dim=1)
    attention = torch.cat([prompt_mask_BP, mask_BT[:, :-1]], dim=1)
    with backbone.adapters(stack, slot_B), _head_input(backbone) as hidden:
        logits = backbone(tokens, attention, keep=length, use_cache=False).logits
    # Masked positions are replaced before any arithmetic: whatever is there, neither it nor its gradient gets out.
    logits = torch.where(mask_BT.unsqueeze(2), logits, 0).float()
    logits = logits / torch.as_tensor(temperature, dtype=torch.float32, device=device).view(-1, 1, 1)
    logp = logits.log_softmax(dim=2)
    entropy_BT = -(logp.exp() * logp).sum(dim=2) if entropy else None
    logp_BT = logp.gather(2, safe_BT.unsqueeze(2)).squeeze(2)
    value_BT = None
    if value and stack is not None:
        slots = slot_B.to(device)
        state = torch.where(mask_BT.unsqueeze(2), hidden[-1][:, -length:], 0).float()
        weight_B, bias_B = stack.value_weight.index_select(0, slots), stack.value_bias.index_select(0, slots)
        value_BT = torch.einsum("bth,bh->bt", state, weight_B) + bias_B
    return ForwardOutput(*(None if x is None else torch.where(mask_BT, x, 0) for x in (logp_BT, value_BT, entropy_BT)))


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the prompts as one int64 tensor [B, P], padded on the left, and the bool mask [B, P] of what is real."""
    length_B = torch.tensor([len(prompt) for prompt in prompts])
    width = int(length_B.max())
    mask_BP = torch.arange(width) >= width - length_B[:, None]
    tokens_BP = torch.full(mask_BP.shape, pad_id)
    tokens_BP[mask_BP] = torch.tensor([token for prompt in prompts for token in prompt])
    return tokens_BP.to(device), mask_BP.to(device)


@contextmanager
def _head_input(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Within: what enters the output head is collected. Read there, it is what the logits are made of in any model."""
    seen: list[Tensor] = []
    head = backbone.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()
