"""Responses of several runs in one line of tokens: no padding between them, and every prompt once for its whole group.

    line:  | run 0:  prompt  prompt  response  response  response  response  (padding) | run 1:  ...

Norms and linear layers see the line [1, N]; only attention looks at whole sequences. It gathers queries, keys and
values of each response, behind those of its prompt, into [B, heads, S, d], and puts what comes out back in line. A
prompt's own states are read from the first response of its group. Runs take equal stretches of the line, so that their
adapters' products are one batched product: the only padding that there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlzoo.attention import causal, is_short, one_query
from rlzoo.products import usual

ATTENTION = "in_line"
"""What transformers calls the attention of this module: within `attending` that of a line, otherwise of rows."""


@dataclass(frozen=True)
class Line:
    """N tokens of B responses in line. `sequence_BS`, `reader_N` and `before_R` are places; all int64, on one device.

    Attributes:
        token_N, position_N: what the model is fed; padding is the padding token at position 0.
        slot_N: adapter of each token; equally many of each, sorted.
        sequence_BS: place in the line of each position of each sequence; after its end, of its first.
        reader_N: place in the flattened [B, S] whose attention output each token of the line takes.
        before_R: place of the token before each of the R real tokens of the responses, row after row.
        real: tokens that are not padding.
    """

    token_N: Tensor
    position_N: Tensor
    slot_N: Tensor
    sequence_BS: Tensor
    reader_N: Tensor
    before_R: Tensor
    real: int

    @classmethod
    def of(
        cls, prompts: Sequence[Sequence[int]], slot_B: Tensor, response_BT: Tensor, mask_BT: Tensor, pad_id: int
    ) -> Line:
        """Put responses in line, sorted by slot. Rows of one adapter share a prompt if it is the same list object.

        mask_BT is true from the left. A response's last token predicts nothing that is asked for and is not fed.
        """
        device, slot_B, mask_BT = mask_BT.device, slot_B.cpu(), mask_BT.cpu()
        group_of: dict[tuple[int, int], int] = {}  # (adapter, prompt) -> group, in the order of their first rows
        group_B = torch.tensor(
            [group_of.setdefault(k, len(group_of)) for k in zip(slot_B.tolist(), map(id, prompts), strict=True)]
        )
        groups, rows = len(group_of), len(prompts)
        first_U = torch.full((groups,), rows).scatter_reduce_(0, group_B, torch.arange(rows), "amin")
        chosen = [prompts[b] for b in first_U.tolist()]
        prompt_U, length_B = torch.tensor([len(prompt) for prompt in chosen]), mask_BT.sum(dim=1)
        fed_B, prompt_B = (length_B - 1).clamp(min=0), prompt_U[group_B]

        # Stretches of the line: each run's prompts and then its responses; every run's part is as long as the longest.
        size = torch.cat([prompt_U, fed_B])
        present, run = torch.cat([slot_B[first_U], slot_B]).unique(return_inverse=True)
        order = (2 * run + (torch.arange(groups + rows) >= groups)).argsort(stable=True)
        total_K = torch.zeros(len(present), dtype=torch.int64).index_add_(0, run, size)
        width = usual(int(total_K.max()))
        start = torch.empty_like(size)
        start[order] = size[order].cumsum(0) - size[order]
        start += (width * torch.arange(len(present)) - (total_K.cumsum(0) - total_K))[run]
        start_U, start_B = start[:groups], start[groups:]
        in_prompt, in_response = _ranges(start_U, prompt_U), _ranges(start_B, fed_B)

        fed_BT = torch.arange(mask_BT.shape[1]) < fed_B[:, None]
        token_N = torch.full((len(present) * width,), pad_id)
        token_N[in_prompt] = torch.tensor([token for prompt in chosen for token in prompt])
        token_N[in_response] = response_BT.cpu()[fed_BT]
        position_N = torch.zeros_like(token_N)
        position_N[in_prompt] = _ranges(torch.zeros_like(prompt_U), prompt_U)
        position_N[in_response] = _ranges(prompt_B, fed_B)

        place_1S = torch.arange(int((prompt_B + fed_B).max()))[None]
        sequence_BS = torch.where(
            place_1S < prompt_B[:, None], start_U[group_B, None] + place_1S, (start_B - prompt_B)[:, None] + place_1S
        )
        sequence_BS = sequence_BS.where(place_1S < (prompt_B + fed_B)[:, None], start_U[group_B, None])
        longest = place_1S.shape[1]
        reader_N = (torch.searchsorted(slot_B, present) * longest).repeat_interleave(width)  # padding: its own run
        reader_N[in_prompt] = _ranges(first_U * longest, prompt_U)
        reader_N[in_response] = _ranges(torch.arange(rows) * longest + prompt_B, fed_B)
        before_R = _ranges(start_B - 1, length_B)
        some = length_B > 0
        before_R[(length_B.cumsum(0) - length_B)[some]] = (start_U[group_B] + prompt_B - 1)[some]
        tensors = (token_N, position_N, present.repeat_interleave(width), sequence_BS, reader_N, before_R)
        return cls(*(x.to(device) for x in tensors), real=int(size.sum()))

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        """Attention [1, N, heads, d] of queries, keys and values [1, heads, N, d]: of each token to its sequence."""
        rows, longest = self.sequence_BS.shape
        index = self.sequence_BS.flatten()

        def gather(x: Tensor) -> Tensor:
            _, heads, tokens, width = x.shape
            line = x.transpose(1, 2).reshape(tokens, heads * width).index_select(0, index)
            return line.view(rows, longest, heads, width).transpose(1, 2)

        query, key, value = gather(query), gather(key), gather(value)
        if is_short(query, key):
            out = causal(query, key, value, kwargs["scaling"]).transpose(1, 2)
        else:
            out, _ = sdpa_attention_forward(module, query, key, value, None, **kwargs | {"is_causal": True})
        return out.reshape(rows * longest, -1).index_select(0, self.reader_N).view(1, -1, *out.shape[2:])


def _ranges(start: Tensor, length: Tensor) -> Tensor:
    """start[0], start[0] + 1, ... (length[0] of them), start[1], ..."""
    skipped = length.cumsum(0) - length
    return (start - skipped).repeat_interleave(length) + torch.arange(int(length.sum()))


_line: ContextVar[Line | None] = ContextVar("line", default=None)


@contextmanager
def attending(line: Line) -> Iterator[None]:
    """Within: attention is that of the line."""
    token = _line.set(line)
    try:
        yield
    finally:
        _line.reset(token)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    line = _line.get()
    if line is None and query.shape[2] == 1 and is_short(query, key) and not torch.is_grad_enabled():
        return one_query(query, key, value, attention_mask, kwargs["scaling"]).transpose(1, 2), None
    if line is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return line.attend(module, query, key, value, **kwargs), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
