"""Token sequences in a request to an engine: P prompts, and N rows that each continue one of them.

    row n:   prompts[group_n]  token_n1 token_n2 ... token_nT

Each row has two masks. `exists`: the token is real, so attention reads it and it has a position. `learn`: the policy
chose the token, so it has a log-prob and enters the loss. In a single turn both masks are equal; in a conversation the
environment's tokens exist but are not learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """N continuations of P prompts. Data only: no model is needed to make one.

    Attributes:
        prompts: P lists of token ids.
        group_N: int64, the prompt that each row continues, 0 .. P-1.
        token_NT: int64, the tokens after the prompt, padded on the right with anything.
        exists_NT: bool, real tokens; contiguous from the left.
        learn_NT: bool, tokens that the policy chose; a subset of `exists_NT`, with any holes.

    Raises:
        ValueError: a mask is not as described, or a row names a prompt that is not there.
    """

    prompts: list[list[int]]
    group_N: Tensor
    token_NT: Tensor
    exists_NT: Tensor
    learn_NT: Tensor

    def __post_init__(self) -> None:
        check_masks(self.exists_NT, self.learn_NT)
        check_groups(self.group_N, len(self.prompts), len(self.token_NT))

    def rows(self, index: Tensor, trim: bool = True) -> Tokens:
        """Return the rows of an index with the prompts that they need; `trim` cuts columns in which none exists."""
        used, group_N = self.group_N[index.to(self.group_N.device)].unique(return_inverse=True)
        exists_NT = self.exists_NT[index]
        width = int(exists_NT.sum(dim=1).max()) if trim and exists_NT.any() else exists_NT.shape[1]
        tensors = (x[index][:, :width] for x in (self.token_NT, self.exists_NT, self.learn_NT))
        return Tokens([self.prompts[p] for p in used.tolist()], group_N, *tensors)

    @classmethod
    def cat(cls, parts: Sequence[Tokens]) -> Tokens:
        """Concatenate rows, padded to the longest. Prompts of different parts stay separate."""
        first, groups = 0, []
        for part in parts:
            groups.append(part.group_N + first)
            first += len(part.prompts)
        prompts = [prompt for part in parts for prompt in part.prompts]
        columns = ([getattr(part, name) for part in parts] for name in ("token_NT", "exists_NT", "learn_NT"))
        return cls(prompts, torch.cat(groups), *(cat_padded(column) for column in columns))

    def __len__(self) -> int:
        return len(self.token_NT)

    @property
    def prompt_length_N(self) -> Tensor:
        """Tokens of each row's prompt: int64 [N], on the CPU."""
        return torch.tensor([len(prompt) for prompt in self.prompts], dtype=torch.int64)[self.group_N.cpu()]

    @property
    def length_N(self) -> Tensor:
        """Tokens of each row, prompt included: int64 [N], on the CPU."""
        return self.prompt_length_N + self.exists_NT.sum(dim=1).cpu()

    @property
    def size(self) -> int:
        """Tokens of all rows, a prompt counted once per row."""
        return int(self.length_N.sum())


def check_masks(exists_NT: Tensor, learn_NT: Tensor) -> None:
    """Raise `ValueError` unless tokens exist from the left without a hole, and only those are learned from."""
    if bool((exists_NT[:, 1:] & ~exists_NT[:, :-1]).any()):
        raise ValueError("exists_NT has a hole: tokens exist from the left; mark what is not learned from in learn_NT")
    if bool((learn_NT & ~exists_NT).any()):
        raise ValueError("learn_NT marks a token that does not exist")


def check_groups(group_N: Tensor, prompts: int, rows: int) -> None:
    """Raise `ValueError` unless each of so many rows continues one of so many prompts."""
    if len(group_N) != rows or (rows and not 0 <= int(group_N.min()) <= int(group_N.max()) < prompts):
        raise ValueError(f"group_N must name one of {prompts} prompts for each of {rows} rows, got {group_N.tolist()}")


def cat_padded(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate matrices [n_i, T_i] by rows, padded with zeros on the right: [sum n_i, max T_i]."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
