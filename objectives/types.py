"""The two inputs of an objective: `PolicyOutput` has gradients, `TokenBatch` has none.

Shape letters: B rows, T response tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyOutput:
    """The current policy's output for the batch's tokens, with gradient.

    Attributes:
        logp_BT: log-prob of each response token, float32, exactly 0 at masked positions.
        value_BT: V(s_t) before each token; None unless the objective needs "value".
        entropy_BT: entropy of the distribution each token was drawn from, in nats; None unless it needs "entropy".
    """

    logp_BT: Tensor
    value_BT: Tensor | None = None
    entropy_BT: Tensor | None = None

    def detach(self) -> PolicyOutput:
        """Return the same values without gradient."""
        return replace(self, **{name: x.detach() for name, x in _tensors(self).items()})


@dataclass(frozen=True)
class TokenBatch:
    """All other inputs of an objective, without gradient. Checked once, here.

    Attributes:
        mask_BT: bool, true at tokens the policy chose (the end token included).
        weight_BT: each token's share of the loss, made by `Objective.aggregate` for the WHOLE optimizer step and then
            sliced, so that the losses of micro-batches simply add up.
        advantage_BT: credit of each token.
        old_logp_BT: log-probs under the policy that sampled the tokens.
        ref_logp_BT, old_value_BT, return_BT: reference log-probs, the critic's values at sampling time, its targets.
        sampler_logp_BT: the sampler's own log-probs, if old_logp_BT was recomputed by the trainer.
        chosen_BT: bool, true at tokens with special treatment, made by `Objective.choose` for the whole step like the
            weights; None unless the objective has a part in its column "tokens".
        imitation_BT: each token's share of the imitation cost, made by `Objective.imitate` for the whole step like
            the weights; None unless the objective has a part in its column "imitation".

    Raises:
        ValueError: shapes differ, mask or choice is not bool, or a tensor has a gradient.
    """

    mask_BT: Tensor
    weight_BT: Tensor
    advantage_BT: Tensor
    old_logp_BT: Tensor
    ref_logp_BT: Tensor | None = None
    old_value_BT: Tensor | None = None
    return_BT: Tensor | None = None
    sampler_logp_BT: Tensor | None = None
    chosen_BT: Tensor | None = None
    imitation_BT: Tensor | None = None

    def __post_init__(self) -> None:
        for name, flag in (("mask_BT", self.mask_BT), ("chosen_BT", self.chosen_BT)):
            if flag is not None and flag.dtype != torch.bool:
                raise ValueError(f"{name} must be bool, got {flag.dtype}")
        for name, x in _tensors(self).items():
            if x.shape != self.mask_BT.shape:
                raise ValueError(f"{name} has shape {tuple(x.shape)}, mask_BT has {tuple(self.mask_BT.shape)}")
            if x.requires_grad:
                raise ValueError(f"{name} carries a gradient; only PolicyOutput may. Call .detach() on it")

    def rows(self, index: Tensor | slice | tuple[Tensor, slice]) -> TokenBatch:
        """Return the batch of some rows, optionally of some columns; weights stay those of the whole optimizer step."""
        return replace(self, **{name: x[index] for name, x in _tensors(self).items()})


def _tensors(record: PolicyOutput | TokenBatch) -> dict[str, Tensor]:
    values = {field.name: cast("Tensor | None", getattr(record, field.name)) for field in fields(record)}
    return {name: x for name, x in values.items() if x is not None}
