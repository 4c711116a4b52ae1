"""Intermediate values of one batch: requests and their outputs, collected over forward and backward passes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.engine.protocol import LearnRequest, ScoreRequest
from rlzoo.engine.tokens import Tokens


@dataclass(frozen=True)
class PassOutput(PolicyOutput):
    """What one pass computes: what an objective sees, and what only a `ScoreRequest` asks for."""

    collision_BT: Tensor | None = None


class Gathered:
    """Outputs [B, T] of a request, collected from its passes; 0 for rows that no pass has computed."""

    def __init__(self, mask_BT: Tensor) -> None:
        self.mask_BT = mask_BT
        self._columns: dict[str, Tensor] = {}

    def put(self, rows: Tensor, part: PolicyOutput) -> None:
        """Store the output of a pass for some rows."""
        for name, x in vars(part).items():
            if x is not None:
                whole = self._columns.setdefault(name, x.new_zeros(self.mask_BT.shape))
                whole[rows.to(x.device), : x.shape[1]] = x

    def column(self, name: str) -> Tensor:
        """One output [B, T]; zeros if there was no pass."""
        return self._columns.get(name, torch.zeros(self.mask_BT.shape, device=self.mask_BT.device))

    def policy(self) -> PolicyOutput:
        """All of them."""
        return PolicyOutput(self.column("logp_BT"), self._columns.get("value_BT"), self._columns.get("entropy_BT"))


@dataclass(frozen=True)
class Scoring:
    """Scores of one request's rows under one adapter, or under the base model."""

    index: int
    request: ScoreRequest
    theta: Tensor | None
    want: frozenset[str]


@dataclass(frozen=True)
class Learning:
    """The rows of a request that have a gradient, and the objective parsed from its JSON."""

    run: str
    objective: Objective
    tokens: Tokens
    batch: TokenBatch
    temperature: float
    starts_here: bool
    rows: Tensor

    @classmethod
    def of(cls, request: LearnRequest, objective: Objective) -> Learning:
        """Drop the rows whose gradient is zero under any policy; the weights of the other rows do not change."""
        tokens, batch = request.tokens, request.batch
        rows = objective.learns_from(batch).nonzero().flatten()
        if len(rows) < len(tokens):
            tokens, batch = tokens.rows(rows, trim=False), batch.rows(rows)
        return cls(request.run, objective, tokens, batch, request.temperature, request.starts_here, rows)

    def narrow(self, rows: Tensor, out: PolicyOutput) -> TokenBatch:
        """Some rows of the batch, cut to the width of what was computed for them (beyond it is padding)."""
        batch = self.batch.rows((rows, slice(0, out.logp_BT.shape[1])))
        return replace(batch, old_logp_BT=out.logp_BT.detach()) if self.starts_here else batch


@dataclass(frozen=True)
class LearnedPart:
    """The result of one pass for one request.

    Attributes:
        loss: sum over the request's rows in this pass.
        gradients: one for each parameter vector that the run trains.
        policy: the policy's output for these rows, detached.
    """

    loss: float
    gradients: list[Tensor]
    policy: PolicyOutput
