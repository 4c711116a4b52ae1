"""Responses of several runs in one line of tokens: no padding between them, and every prompt once for its whole group.

    line:  | run 0:  prompt  prompt  response  response  response  response  (padding) | run 1:  ...

Norms and linear layers see the line [1, N]; only attention looks at whole sequences. It gathers queries, keys and
values of each response, behind those of its prompt, into [B, heads, S, d], and puts what comes out back in line. A
prompt's own states are read from the first response of its group. (Layers written out have a way of their own, which
does prompts once: `rlzoo.model.cpu.packed_attention`.) Runs take equal stretches of the line, so that their
adapters' products are one batched product: the only padding that there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlzoo.model.cpu.attention import additive, causal, is_short, one_query
from rlzoo.model.cpu.matmul import usual

ATTENTION = "in_line"
"""What transformers calls the attention of this module: within `attending` that of a line, otherwise of rows."""


@dataclass(frozen=True)
class Stretches:
    """Pieces of a line: where each starts, and how many tokens it has; int64."""

    start: Tensor
    length: Tensor

    @property
    def places(self) -> Tensor:
        """The places of all their tokens, piece after piece."""
        return ranges(self.start, self.length)

    def columns(self, width: int, otherwise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places [pieces, width] of their tokens, after its end one [pieces] of each; and which are real."""
        column_1W = torch.arange(width, device=self.start.device)[None]
        real = column_1W < self.length[:, None]
        return torch.where(real, self.start[:, None] + column_1W, otherwise[:, None]), real

    def to(self, device: torch.device) -> Stretches:
        return Stretches(self.start.to(device), self.length.to(device))


@dataclass(frozen=True)
class Line:
    """N tokens of B responses in line, with the U prompts that they follow. All places are int64, on one device.

    Attributes:
        token_N, position_N: what the model is fed; padding is the padding token at position 0.
        slot_N: adapter of each token; equally many of each, sorted.
        prompts, responses: their stretches; of a response, the tokens that are fed.
        prompt_B: which prompt each response follows.
        first_N: for each token, the first one of its run; a prompt's.
        before_R: place of the token before each of the R learned tokens, row after row.
        real: tokens that are not padding.
    """

    token_N: Tensor
    position_N: Tensor
    slot_N: Tensor
    prompts: Stretches
    responses: Stretches
    prompt_B: Tensor
    first_N: Tensor
    before_R: Tensor
    real: int

    @classmethod
    def of(
        cls,
        prompts: Sequence[Sequence[int]],
        group_B: Tensor,
        slot_B: Tensor,
        token_BT: Tensor,
        exists_BT: Tensor,
        learn_BT: Tensor,
        pad_id: int,
    ) -> Line:
        """Put rows in line, sorted by slot. Rows of one adapter that name the same prompt share it.

        Tokens exist from the left; those after a row's last learned token, and that token itself, predict nothing that
        is learned from and are not fed.
        """
        device, slot_B, owner_B = exists_BT.device, slot_B.cpu(), group_B.cpu()
        exists_BT, learn_BT = exists_BT.cpu(), learn_BT.cpu()
        exists_BT = exists_BT & up_to_last(learn_BT)
        group_of: dict[tuple[int, int], int] = {}  # (adapter, prompt) -> group, in the order of their first rows
        keys = list(zip(slot_B.tolist(), owner_B.tolist(), strict=True))
        group_B = torch.tensor([group_of.setdefault(key, len(group_of)) for key in keys])
        groups, rows = len(group_of), len(keys)
        first_U = torch.full((groups,), rows).scatter_reduce_(0, group_B, torch.arange(rows), "amin")
        chosen = [prompts[owner] for _, owner in group_of]
        prompt_U, length_B = torch.tensor([len(prompt) for prompt in chosen]), exists_BT.sum(dim=1)
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
        prompts_at, responses_at = Stretches(start[:groups], prompt_U), Stretches(start[groups:], fed_B)
        in_prompt, in_response = prompts_at.places, responses_at.places

        fed_BT = torch.arange(exists_BT.shape[1]) < fed_B[:, None]
        token_N = torch.full((len(present) * width,), pad_id)
        token_N[in_prompt] = torch.tensor([token for prompt in chosen for token in prompt])
        token_N[in_response] = token_BT.cpu()[fed_BT]
        position_N = torch.zeros_like(token_N)
        position_N[in_prompt] = ranges(torch.zeros_like(prompt_U), prompt_U)
        position_N[in_response] = ranges(prompt_B, fed_B)
        first_N = (width * torch.arange(len(present))).repeat_interleave(width)
        before_R = ranges(responses_at.start - 1, length_B)
        some = length_B > 0
        before_R[(length_B.cumsum(0) - length_B)[some]] = (prompts_at.start[group_B] + prompt_B - 1)[some]
        before_R = before_R[learn_BT[exists_BT]]
        return cls(
            token_N=token_N.to(device),
            position_N=position_N.to(device),
            slot_N=present.repeat_interleave(width).to(device),
            prompts=prompts_at.to(device),
            responses=responses_at.to(device),
            prompt_B=group_B.to(device),
            first_N=first_N.to(device),
            before_R=before_R.to(device),
            real=int(size.sum()),
        )

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and response."""
        return int((self.prompts.length[self.prompt_B] + self.responses.length).max())

    @cached_property
    def sequence_BS(self) -> Tensor:
        """Place of each position of each sequence, prompt and response; after its end, of its first."""
        start_U = self.prompts.start
        prompt_BS, in_prompt_BS = (x[self.prompt_B] for x in self.prompts.columns(self.longest, start_U))
        prompt_B1 = self.prompts.length[self.prompt_B, None]
        column_1S = torch.arange(self.longest, device=prompt_B1.device)[None]
        in_response_BS = ~in_prompt_BS & (column_1S < prompt_B1 + self.responses.length[:, None])
        return torch.where(in_response_BS, self.responses.start[:, None] - prompt_B1 + column_1S, prompt_BS)

    @cached_property
    def reader_N(self) -> Tensor:
        """Place in the flattened [B, S] whose attention output each token takes: a prompt's in the first row of its
        group, padding as the first token of its run."""
        rows = torch.arange(len(self.prompt_B), device=self.prompt_B.device)
        first_U = torch.full_like(self.prompts.start, len(rows)).scatter_reduce_(0, self.prompt_B, rows, "amin")
        reader_N = torch.empty_like(self.token_N)
        reader_N[self.prompts.places] = ranges(first_U * self.longest, self.prompts.length)
        after_B = rows * self.longest + self.prompts.length[self.prompt_B]
        reader_N[self.responses.places] = ranges(after_B, self.responses.length)
        return torch.where(self.is_padding, reader_N[self.first_N], reader_N)

    @cached_property
    def is_padding(self) -> Tensor:
        """bool [N]."""
        is_padding = torch.ones_like(self.token_N, dtype=torch.bool)
        is_padding[self.prompts.places] = is_padding[self.responses.places] = False
        return is_padding

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


def up_to_last(learn_BT: Tensor) -> Tensor:
    """Positions up to each row's last learned token, that one included: bool [B, T]."""
    return learn_BT.flip(1).cummax(dim=1).values.flip(1)


def ranges(start: Tensor, length: Tensor) -> Tensor:
    """start[0], start[0] + 1, ... (length[0] of them), start[1], ..."""
    skipped = length.cumsum(0) - length
    return (start - skipped).repeat_interleave(length) + torch.arange(int(length.sum()), device=start.device)


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
        seen_BS = key.new_ones(key.shape[:3:2], dtype=torch.bool) if attention_mask is None else attention_mask[:, 0, 0]
        mask = additive(seen_BS, key.shape[1], query.dtype)
        return one_query(query, key, value, mask, kwargs["scaling"]).transpose(1, 2), None
    if line is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return line.attend(module, query, key, value, **kwargs), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
