"""What the requests of one batch become on their way through its passes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.engine.protocol import LearnRequest, ScoreRequest
from rlzoo.engine.tokens import Tokens


class Gathered:
    """Outputs [B, T] of a request, put together from its passes; 0 where no pass has been."""

    def __init__(self, mask_BT: Tensor) -> None:
        self.mask_BT = mask_BT
        self._columns: dict[str, Tensor] = {}

    def put(self, rows: Tensor, part: PolicyOutput) -> None:
        """Take over what a pass said of some rows."""
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
    """What one adapter, or the base model, says of one request's rows."""

    index: int
    request: ScoreRequest
    theta: Tensor | None
    want: frozenset[str]


@dataclass(frozen=True)
class Learning:
    """The rows of a request that are learned from, and the objective that its JSON is of."""

    run: str
    objective: Objective
    tokens: Tokens
    batch: TokenBatch
    temperature: float
    starts_here: bool
    rows: Tensor

    @classmethod
    def of(cls, request: LearnRequest, objective: Objective) -> Learning:
        """Leave out the rows whose gradient is zero whatever the policy says; the weights of the others stay."""
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
    """What one request has of one pass.

    Attributes:
        loss: over its rows of the pass.
        gradients: of what its run trains.
        policy: what the policy said of the rows, detached.
    """

    loss: float
    gradients: list[Tensor]
    policy: PolicyOutput
