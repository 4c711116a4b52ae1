"""Rows of several runs packed into one sequence: no padding between rows, and each prompt once for its whole group.

    packed:  | run 0:  prompt  prompt  row  row  row  row  (padding) | run 1:  ...

Norms and linear layers process the packed tokens [1, N]. Only attention needs whole sequences: it gathers queries, keys
and values of each row and its prompt into [B, heads, S, d], and scatters the output back. A prompt's output is taken
from the first row of its group. Every run gets the same number of tokens, so that the products with all adapters are
one batched product; this is the only padding.
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

ATTENTION = "packed"
"""Name of this module's attention in transformers: of the packed batch within `packed_attention`, otherwise SDPA."""


@dataclass(frozen=True)
class Spans:
    """Spans of a packed sequence: the first index of each and its number of tokens, int64."""

    start: Tensor
    length: Tensor

    @property
    def index(self) -> Tensor:
        """Indices of all tokens, one span after another."""
        return ranges(self.start, self.length)

    def columns(self, width: int, fill: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices as rows [spans, width], padded with `fill` [spans], and the mask of real ones."""
        column_1W = torch.arange(width, device=self.start.device)[None]
        real = column_1W < self.length[:, None]
        return torch.where(real, self.start[:, None] + column_1W, fill[:, None]), real

    def to(self, device: torch.device) -> Spans:
        """Return the spans on a device."""
        return Spans(self.start.to(device), self.length.to(device))


@dataclass(frozen=True)
class PackedBatch:
    """N packed tokens: B rows and the U prompts that they continue. Indices are int64 and point into the N tokens.

    Attributes:
        token_N, position_N: the model's input; padding is the padding token at position 0.
        slot_N: adapter of each token, sorted, with equally many tokens per adapter.
        prompts: spans of the U prompts.
        responses: spans of the B rows, without their prompts.
        prompt_B: index of each row's prompt.
        first_N: for each token, the first token of its run, which is a prompt's.
        before_R: index of the token before each of the R learned tokens, row after row.
        real: number of tokens that are not padding.
    """

    token_N: Tensor
    position_N: Tensor
    slot_N: Tensor
    prompts: Spans
    responses: Spans
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
    ) -> PackedBatch:
        """Pack rows that are sorted by slot. Rows of one adapter with the same prompt share it.

        Arguments are those of `log_probs.policy_forward`. A row's last learned token and what follows it predict no
        learned token and are left out.
        """
        device, slot_B, owner_B = exists_BT.device, slot_B.cpu(), group_B.cpu()
        exists_BT, learn_BT = exists_BT.cpu(), learn_BT.cpu()
        exists_BT = exists_BT & up_to_last(learn_BT)
        group_of: dict[tuple[int, int], int] = {}  # (adapter, prompt) -> group, in the order of their first rows
        keys = list(zip(slot_B.tolist(), owner_B.tolist(), strict=True))
        prompt_B = torch.tensor([group_of.setdefault(key, len(group_of)) for key in keys])
        chosen = [prompts[owner] for _, owner in group_of]
        prompt_U, length_B = torch.tensor([len(prompt) for prompt in chosen]), exists_BT.sum(dim=1)
        fed_B = (length_B - 1).clamp(min=0)
        slot_U = torch.tensor([slot for slot, _ in group_of])
        prompts_at, responses_at, present, width = _lay_out(slot_U, prompt_U, slot_B, fed_B)

        token_N = torch.full((len(present) * width,), pad_id)
        token_N[prompts_at.index] = torch.tensor([token for prompt in chosen for token in prompt])
        token_N[responses_at.index] = token_BT.cpu()[torch.arange(exists_BT.shape[1]) < fed_B[:, None]]
        position_N = torch.zeros_like(token_N)
        position_N[prompts_at.index] = ranges(torch.zeros_like(prompt_U), prompt_U)
        position_N[responses_at.index] = ranges(prompt_U[prompt_B], fed_B)
        before = ranges(responses_at.start - 1, length_B)
        some = length_B > 0  # before each row's first token is the last one of its prompt
        last_B = (prompts_at.start + prompt_U - 1)[prompt_B]
        before[(length_B.cumsum(0) - length_B)[some]] = last_B[some]
        return cls(
            token_N=token_N.to(device),
            position_N=position_N.to(device),
            slot_N=present.repeat_interleave(width).to(device),
            prompts=prompts_at.to(device),
            responses=responses_at.to(device),
            prompt_B=prompt_B.to(device),
            first_N=(width * torch.arange(len(present))).repeat_interleave(width).to(device),
            before_R=before[learn_BT[exists_BT]].to(device),
            real=int(prompt_U.sum() + fed_B.sum()),
        )

    @cached_property
    def longest(self) -> int:
        """Length of the longest sequence, prompt included."""
        return int((self.prompts.length[self.prompt_B] + self.responses.length).max())

    @cached_property
    def sequence_BS(self) -> Tensor:
        """Index of each token of each sequence, prompt included; beyond its end, that of its first token."""
        start_U = self.prompts.start
        prompt_BS, in_prompt_BS = (x[self.prompt_B] for x in self.prompts.columns(self.longest, start_U))
        prompt_B1 = self.prompts.length[self.prompt_B, None]
        column_1S = torch.arange(self.longest, device=prompt_B1.device)[None]
        in_response_BS = ~in_prompt_BS & (column_1S < prompt_B1 + self.responses.length[:, None])
        return torch.where(in_response_BS, self.responses.start[:, None] - prompt_B1 + column_1S, prompt_BS)

    @cached_property
    def reader_N(self) -> Tensor:
        """For each token, the index of its attention output in the flattened [B, S]. A prompt's is in the first row of
        its group; padding takes that of the first token of its run."""
        rows = torch.arange(len(self.prompt_B), device=self.prompt_B.device)
        first_U = torch.full_like(self.prompts.start, len(rows)).scatter_reduce_(0, self.prompt_B, rows, "amin")
        reader_N = torch.empty_like(self.token_N)
        reader_N[self.prompts.index] = ranges(first_U * self.longest, self.prompts.length)
        after_B = rows * self.longest + self.prompts.length[self.prompt_B]
        reader_N[self.responses.index] = ranges(after_B, self.responses.length)
        return torch.where(self.is_padding, reader_N[self.first_N], reader_N)

    @cached_property
    def is_padding(self) -> Tensor:
        """Whether a token is padding: bool [N]."""
        is_padding = torch.ones_like(self.token_N, dtype=torch.bool)
        is_padding[self.prompts.index] = is_padding[self.responses.index] = False
        return is_padding

    def attend(self, module: Any, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        """Causal attention of each token to its own sequence: [1, heads, N, d] -> [1, N, heads, d]."""
        rows, longest = self.sequence_BS.shape
        index = self.sequence_BS.flatten()

        def gather(x: Tensor) -> Tensor:
            _, heads, tokens, width = x.shape
            flat = x.transpose(1, 2).reshape(tokens, heads * width).index_select(0, index)
            return flat.view(rows, longest, heads, width).transpose(1, 2)

        query, key, value = gather(query), gather(key), gather(value)
        if is_short(query, key):
            out = causal(query, key, value, kwargs["scaling"]).transpose(1, 2)
        else:
            out, _ = sdpa_attention_forward(module, query, key, value, None, **kwargs | {"is_causal": True})
        return out.reshape(rows * longest, -1).index_select(0, self.reader_N).view(1, -1, *out.shape[2:])


def _lay_out(slot_U: Tensor, prompt_U: Tensor, slot_B: Tensor, fed_B: Tensor) -> tuple[Spans, Spans, Tensor, int]:
    """Place each run's prompts and then its rows; every run gets as many tokens as the largest needs.

    Returns the spans of the prompts and of the rows, the adapters in use, and the number of tokens per adapter.
    """
    groups, size = len(prompt_U), torch.cat([prompt_U, fed_B])
    present, run = torch.cat([slot_U, slot_B]).unique(return_inverse=True)
    order = (2 * run + (torch.arange(len(size)) >= groups)).argsort(stable=True)
    total_K = torch.zeros(len(present), dtype=torch.int64).index_add_(0, run, size)
    width = int(total_K.max())
    start = torch.empty_like(size)
    start[order] = size[order].cumsum(0) - size[order]
    start += (width * torch.arange(len(present)) - (total_K.cumsum(0) - total_K))[run]
    return Spans(start[:groups], prompt_U), Spans(start[groups:], fed_B), present, width


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the prompts as one int64 tensor [B, P], padded on the left, and the bool mask [B, P] of real tokens."""
    length_B = torch.tensor([len(prompt) for prompt in prompts])
    width = int(length_B.max())
    mask_BP = torch.arange(width) >= width - length_B[:, None]
    tokens_BP = torch.full(mask_BP.shape, pad_id)
    tokens_BP[mask_BP] = torch.tensor([token for prompt in prompts for token in prompt])
    return tokens_BP.to(device), mask_BP.to(device)


def up_to_last(learn_BT: Tensor) -> Tensor:
    """Return the mask of positions up to and including each row's last learned token: bool [B, T]."""
    return learn_BT.flip(1).cummax(dim=1).values.flip(1)


def ranges(start: Tensor, length: Tensor) -> Tensor:
    """Concatenate start[i], start[i] + 1, ..., start[i] + length[i] - 1 over i."""
    skipped = length.cumsum(0) - length
    return (start - skipped).repeat_interleave(length) + torch.arange(int(length.sum()), device=start.device)


PACKABLE = frozenset(
    {
        *("apertus", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "glm", "glm4", "gpt2", "gpt_neox", "granite"),
        *("helium", "hunyuan_v1_dense", "llama", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmoe"),
        *("phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "starcoder2"),
    }
)
"""transformers' `model_type`s whose attention depends only on positions and causal order."""


def can_pack(model: Any) -> bool:
    """Whether a model's rows can be packed: type in `PACKABLE`, and every layer attends to all earlier tokens."""
    text = model.config.get_text_config()
    window = "sliding" if getattr(text, "sliding_window", None) else "full_attention"
    layers = set(getattr(text, "layer_types", None) or [window])
    return text.model_type in PACKABLE and layers == {"full_attention"} and model._supports_attention_backend


_active: ContextVar[PackedBatch | None] = ContextVar("packed_batch", default=None)


def active_batch() -> PackedBatch | None:
    """Return the packed batch of the surrounding `packed_attention`, if there is one."""
    return _active.get()


@contextmanager
def packed_attention(batch: PackedBatch | None) -> Iterator[None]:
    """Within: attention is that of the packed batch; of padded rows if None."""
    token = _active.set(batch)
    try:
        yield
    finally:
        _active.reset(token)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    batch = _active.get()
    if batch is not None:
        return batch.attend(module, query, key, value, **kwargs), None
    if query.shape[2] == 1 and is_short(query, key) and not torch.is_grad_enabled():
        seen_BS = key.new_ones(key.shape[:3:2], dtype=torch.bool) if attention_mask is None else attention_mask[:, 0, 0]
        mask = additive(seen_BS, key.shape[1], query.dtype)
        return one_query(query, key, value, mask, kwargs["scaling"]).transpose(1, 2), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
