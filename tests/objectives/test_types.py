"""The batch is checked once, when it is made."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from objectives import PolicyOutput, TokenBatch, get

MASK = torch.ones(2, 3, dtype=torch.bool)
X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_BT": X}, "mask_BT must be bool, got torch.float32"),
        ({"weight_BT": torch.zeros(2, 1)}, r"weight_BT has shape \(2, 1\), mask_BT has \(2, 3\)"),
        ({"advantage_BT": torch.zeros(3)}, "advantage_BT has shape"),
        ({"return_BT": torch.zeros(2, 4)}, "return_BT has shape"),
        ({"advantage_BT": X.clone().requires_grad_()}, "advantage_BT carries a gradient; only PolicyOutput may"),
        ({"old_logp_BT": X.clone().requires_grad_()}, r"old_logp_BT carries a gradient.*detach"),
    ],
)
def test_token_batch_refuses(fields: dict[str, torch.Tensor], message: str) -> None:
    good = {"mask_BT": MASK, "weight_BT": X, "advantage_BT": X, "old_logp_BT": X}
    TokenBatch(**good)
    with pytest.raises(ValueError, match=message):
        TokenBatch(**{**good, **fields})


def test_rows_slices_every_field_and_keeps_what_is_missing() -> None:
    numbers = torch.arange(6.0).view(2, 3)
    batch = TokenBatch(MASK, numbers, numbers + 10, numbers + 20, return_BT=numbers + 30)
    second = batch.rows(torch.tensor([1]))
    assert second.weight_BT.tolist() == [[3, 4, 5]]
    assert second.return_BT is not None and second.return_BT.tolist() == [[33, 34, 35]]
    assert second.ref_logp_BT is None
    assert batch.rows(slice(0, 1)).mask_BT.shape == (1, 3)


def test_detach_and_frozen() -> None:
    out = PolicyOutput(X.clone().requires_grad_(), entropy_BT=X.clone().requires_grad_())
    detached = out.detach()
    assert detached.entropy_BT is not None and detached.value_BT is None
    assert not detached.logp_BT.requires_grad and not detached.entropy_BT.requires_grad
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.logp_BT = X


def test_rows_without_an_advantage_are_left_out_unless_they_are_broken() -> None:
    """Advantages 1, 0, and 0 with an old log-prob that is nan: the last must reach the loss, which then is nan, too."""
    mask_BT = torch.ones(3, 2, dtype=torch.bool)
    old_logp_BT = torch.tensor([[-1.0, -1.0], [-1.0, -1.0], [-1.0, float("nan")]])
    advantage_BT = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    batch = TokenBatch(mask_BT, torch.full((3, 2), 0.5), advantage_BT, old_logp_BT)
    assert get("dr_grpo").learns_from(batch).tolist() == [True, False, True]
