"""Rows of a request as the Tinker API has them: whole sequences, each token the target of the one before it.

    sequence n:   prompt_1 .. prompt_p  y_1 .. y_L          targets:  prompt_2 .. prompt_p  y_1 .. y_L

So the log-prob of y_t is that of target p + t - 1, counted from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.engine.tokens import Tokens


@dataclass(frozen=True)
class Rows:
    """The sequences of N rows, and the masks [N, T] of their responses."""

    sequences: list[list[int]]
    tokens: Tokens

    @classmethod
    def of(cls, tokens: Tokens) -> Rows:
        """Join each row to its prompt."""
        parts = zip(tokens.group_N.tolist(), tokens.token_NT, tokens.exists_NT, strict=True)
        return cls([[*tokens.prompts[group], *row[exists].tolist()] for group, row, exists in parts], tokens)

    def responses(self, targets: Sequence[Tensor]) -> Tensor:
        """Cut the responses out of a number per target: float32 [N, T], 0 where `learn` is false."""
        out_NT = torch.zeros(self.tokens.learn_NT.shape)
        for row, (of_row, length) in enumerate(zip(targets, self._lengths, strict=True)):
            out_NT[row, :length] = of_row[len(of_row) - length :]
        return torch.where(self.tokens.learn_NT, out_NT, 0)

    def targets(self, x_NT: Tensor) -> list[Tensor]:
        """The reverse: a number per target of each sequence, 0 at the prompt's."""
        parts = zip(self.sequences, x_NT, self._lengths, strict=True)
        return [torch.cat([x.new_zeros(len(sequence) - 1 - length), x[:length]]) for sequence, x, length in parts]

    @property
    def _lengths(self) -> list[int]:
        return self.tokens.exists_NT.sum(dim=1).tolist()
