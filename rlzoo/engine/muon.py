"""Optimizers of flat adapter vectors: AdamW on all of one, or Muon on its matrices.

    M <- mu M + G        theta <- theta - lr 0.2 sqrt(max(rows, columns)) orthogonalized(G + mu M)

Muon (Jordan 2024; torch.optim.Muon) gives every singular direction of a matrix's momentum the same length, by five
steps of a Newton-Schulz iteration in bfloat16. The factor (2502.16982, section 2.2) makes the root mean square of an
update 0.2 lr whatever the shape, near AdamW's, so that a rate means the same for both. What is no matrix, the value
head, stays with AdamW, as is usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from rlzoo.engine.protocol import AdamSettings, MuonSettings
from rlzoo.model.adapters import AdapterLayout

Moments = Iterator[tuple[Tensor, dict[str, Any]]]


class AdamW(torch.optim.AdamW):
    """AdamW on vectors, each in a group of its own."""

    kind = "adamw"

    def __init__(self, vectors: Sequence[Tensor], settings: AdamSettings) -> None:
        groups = [{"params": [vector]} for vector in vectors]
        decay = settings.weight_decay
        super().__init__(groups, betas=settings.betas, eps=settings.eps, weight_decay=decay, fused=True)

    def forget(self, vector: Tensor) -> None:
        """Drop the moments of a vector: its next step is as its first."""
        self.state.pop(vector, None)

    def moments(self) -> Moments:
        """Each tensor that is stepped, with its moments."""
        yield from self.state.items()


class Muon:
    """Muon on the matrices of adapter vectors, and AdamW on their value heads.

    Attributes:
        param_groups: one per vector, with its "lr".
    """

    kind = "muon"

    def __init__(self, layout: AdapterLayout, vectors: Sequence[Tensor], settings: MuonSettings) -> None:
        self.layout, self.vectors = layout, list(vectors)
        self.param_groups: list[dict[str, float]] = [{"lr": 0.0} for _ in vectors]
        self._matrices_of = [self._split(vector.detach())[0] for vector in vectors]
        self._head_of = [self._split(vector.detach())[1] for vector in vectors]
        self._muon = torch.optim.Muon(
            [{"params": matrices} for matrices in self._matrices_of],
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = AdamW(self._head_of, AdamSettings(weight_decay=settings.weight_decay))

    def _split(self, vector: Tensor) -> tuple[list[Tensor], Tensor]:
        """Views of a vector: its matrices, and the value head."""
        matrices = [piece[0] for piece in self.layout.split(vector.unsqueeze(0))[:-2]]
        return matrices, vector[-self.layout.head_size :]

    def step(self) -> None:
        """Step every vector that has a gradient."""
        of_both = zip(self._muon.param_groups, self._adamw.param_groups, self.param_groups, strict=True)
        for matrices, head, group in of_both:
            matrices["lr"] = head["lr"] = group["lr"]
        for vector, matrices, head in zip(self.vectors, self._matrices_of, self._head_of, strict=True):
            if vector.grad is not None:
                gradients, head.grad = self._split(vector.grad)
                for matrix, gradient in zip(matrices, gradients, strict=True):
                    matrix.grad = gradient
        self._muon.step()
        self._adamw.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._muon.zero_grad()
        self._adamw.zero_grad()
        for vector in self.vectors:
            vector.grad = None

    def forget(self, vector: Tensor) -> None:
        """Drop the moments of a vector: its next step is as its first."""
        index = next(i for i, one in enumerate(self.vectors) if one is vector)
        for matrix in self._matrices_of[index]:
            self._muon.state.pop(matrix, None)
        self._adamw.forget(self._head_of[index])

    def moments(self) -> Moments:
        """Each tensor that is stepped, with its moments."""
        yield from chain(self._muon.state.items(), self._adamw.moments())

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {"matrices": self._muon.state_dict(), "heads": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._muon.load_state_dict(state["matrices"])
        self._adamw.load_state_dict(state["heads"])
