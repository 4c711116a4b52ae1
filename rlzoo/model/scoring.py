"""Log-probs of given responses under the policy, for training and for scoring.

    logp_bt = log softmax(z_bt / temperature)[y_bt],   z_bt the logits after the prompt and y_b1 .. y_b,t-1

The value of the same position, w_k . h_bt + c_k, reads the hidden state the head reads: the state before token t.

Where the model takes it, the tokens stand in one line (`rlzoo.model.packing`): no padding, and every prompt once for
its group.
Head and value see the real tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.model import profiler
from rlzoo.model.adapters import AdapterStack
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import token_log_probs
from rlzoo.model.packing import Line


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
    in_line: bool = True,
) -> ForwardOutput:
    """Score B responses, each after its own prompt and through its own run's adapter.

    slot_B: adapter of each row in the stack, sorted; stack None is the reference policy. mask_BT: bool, the real
    tokens, from the left; what stands outside it in response_BT is ignored. temperature: one number or one per row [B].
    `value` and `entropy` (of the tempered distribution) are computed on request only. `in_line` changes nothing but the
    time; without it, and for models that do not take lines, every row is padded and has its own copy of its prompt.
    """
    if value and stack is None:
        raise ValueError("the reference policy has no value head")
    device = backbone.device
    response_BT, mask_BT = response_BT.to(device), mask_BT.to(device)
    # Only real tokens go on: whatever stands in the others, neither it nor its gradient gets out.
    row_N = mask_BT.nonzero()[:, 0]
    states = _states_in_line if in_line and backbone.takes_lines else _states_of_rows
    state_NH = states(backbone, stack, slot_B, prompt_tokens, response_BT, mask_BT)
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


def _states_in_line(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    response_BT: Tensor,
    mask_BT: Tensor,
) -> Tensor:
    """States [N, hidden] before the N real response tokens, row after row."""
    slots = torch.zeros(len(prompts), dtype=torch.int64) if slot_B is None else slot_B
    line = Line.of(prompts, slots, response_BT, mask_BT, backbone.pad_id)
    profiler.count(lambda: line.real, len(line.token_N))
    with backbone.adapters(stack, line.slot_N, in_line=True):
        return backbone.line_states(line).index_select(0, line.before_R)


def _states_of_rows(
    backbone: Backbone,
    stack: AdapterStack | None,
    slot_B: Tensor | None,
    prompts: Sequence[Sequence[int]],
    response_BT: Tensor,
    mask_BT: Tensor,
) -> Tensor:
    """The same, of padded rows."""
    # The last response token predicts nothing that is asked for, so it is not fed.
    fed_BT, fed_mask_BT = torch.where(mask_BT, response_BT, backbone.pad_id)[:, :-1], mask_BT[:, :-1]
    prompt_BP, prompt_mask_BP = pad_left(prompts, backbone.pad_id, backbone.device)
    tokens, attention = torch.cat([prompt_BP, fed_BT], dim=1), torch.cat([prompt_mask_BP, fed_mask_BT], dim=1)
    profiler.count(lambda: int(attention.sum()), attention.numel())
    with backbone.adapters(stack, slot_B):
        return backbone.states(tokens, attention)[:, prompt_BP.shape[1] - 1 :][mask_BT]


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the prompts as one int64 tensor [B, P], padded on the left, and the bool mask [B, P] of what is real."""
    length_B = torch.tensor([len(prompt) for prompt in prompts])
    width = int(length_B.max())
    mask_BP = torch.arange(width) >= width - length_B[:, None]
    tokens_BP = torch.full(mask_BP.shape, pad_id)
    tokens_BP[mask_BP] = torch.tensor([token for prompt in prompts for token in prompt])
    return tokens_BP.to(device), mask_BP.to(device)
