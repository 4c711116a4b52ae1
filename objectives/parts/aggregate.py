"""Aggregation is data: the mask of a whole optimizer step in, each token's share of the loss out.

n_i tokens in response i, B responses, N = sum n_i tokens:

    token_mean       1 / N              DAPO 2503.14476, section 3.3
    sequence_mean    1 / (B n_i)        GRPO 2402.03300, equation 3
    sequence_sum     1 / B              REINFORCE
    prompt_mean      1 / (P N_p)        ScaleRL 2510.13786: P prompts, N_p tokens of a prompt's responses
    constant         1 / (B budget)     Dr. GRPO 2503.20783, as in its code

The weights are computed once and then sliced, so a loss is always a plain sum: micro-batches, runs in a shared batch
and ranks add up exactly. A fully masked row is not a response: it has weight 0 and does not count in B. A step without
any token has weights 0 and loss 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from advantages import Need, Part
from advantages.statistics import group_sum


class Aggregate(Part):
    """Family: mask_BT (bool) -> weight_BT, 0 outside the mask."""

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Weigh the tokens of one whole optimizer step."""
        raise TypeError(f"{type(self).__name__} does not define __call__")


def responses(mask_BT: Tensor) -> Tensor:
    """Number of rows with at least one token, at least 1."""
    return mask_BT.any(dim=1).sum().clamp(min=1)


class TokenMean(Aggregate, kind="token_mean"):
    """Every token weighs the same: long responses weigh more."""

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return mask_BT.to(dtype) / mask_BT.sum().clamp(min=1)


class SequenceMean(Aggregate, kind="sequence_mean"):
    """Every response weighs the same, however large its group: tokens of long responses weigh less."""

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        return mask_BT.to(dtype) / length_B1 / responses(mask_BT)


class PromptMean(Aggregate, kind="prompt_mean"):
    """Every prompt weighs the same, and so does every token of a prompt: long responses weigh more within their group
    only. It needs the groups, which `Objective.weigh` passes."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.GROUP})

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32, group_B: Tensor | None = None) -> Tensor:
        if group_B is None:
            raise ValueError("aggregate 'prompt_mean' needs group_B, the prompt of each row: call Objective.weigh")
        tokens_B = group_sum(mask_BT.sum(dim=1).to(dtype), group_B)
        valid_B = mask_BT.any(dim=1).to(dtype)
        prompts = torch.where(valid_B > 0, valid_B / group_sum(valid_B, group_B).clamp(min=1), 0).sum().clamp(min=1)
        return mask_BT.to(dtype) / tokens_B.clamp(min=1)[:, None] / prompts


class SequenceSum(Aggregate, kind="sequence_sum"):
    """Tokens of a response add up: the unbiased policy gradient."""

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return mask_BT.to(dtype) / responses(mask_BT)


class Constant(Aggregate, kind="constant"):
    """`sequence_sum` over a fixed number of tokens, the longest response allowed (Dr. GRPO's MAX_TOKENS).

    The budget is a fixed number, never the padded width of a tensor, which would make the loss depend on other rows.
    """

    shown: ClassVar[tuple[str, ...]] = ("budget",)

    budget: int = Field(ge=1)

    def __call__(self, mask_BT: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return mask_BT.to(dtype) / (responses(mask_BT) * self.budget)
