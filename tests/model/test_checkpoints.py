"""Gradient checkpointing: the same gradients with a fraction of the activations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward
from tests.models import random_adapter, write_model


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = write_model(LlamaForCausalLM, LlamaConfig, tmp_path_factory.mktemp("deep"), num_hidden_layers=6)
    return Backbone.load(BackboneConfig(model=str(folder), device="cpu"))


def gradient(made: Backbone, packed: bool) -> tuple[Tensor, int]:
    """Gradient of two runs' log-probs, values and entropy; and the bytes that the graph keeps."""
    kept = 0

    def keep(x: Tensor) -> Tensor:
        nonlocal kept
        kept += x.nbytes
        return x

    token_BT = torch.randint(3, 90, (6, 9), generator=torch.Generator().manual_seed(1))
    exists_BT = torch.arange(9) < torch.tensor([9, 3, 7, 1, 8, 5])[:, None]
    stack = made.stack([random_adapter(made, seed) for seed in (1, 2)], requires_grad=True)
    slot_B, group_B = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 1])
    prompts = [made.encode("3+4="), made.encode("sort 52413")]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = policy_forward(
            made, stack, slot_B, prompts, group_B, token_BT, exists_BT, value=True, entropy=True, packed=packed
        )
    assert out.value_BT is not None and out.entropy_BT is not None
    (out.logp_BT + out.value_BT.square() + 0.1 * out.entropy_BT).sum().backward()
    return stack.grads(), kept


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_gradient_from_fewer_activations(
    packed: bool, deep: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backward runs when adapters and packed batch are no longer active. Of six layers only the inputs are kept."""
    monkeypatch.setattr(deep, "_cpu_layers", None)
    expected, all_kept = gradient(deep, packed)
    deep.use_checkpoints(True)
    try:
        ours, kept = gradient(deep, packed)
    finally:
        deep.use_checkpoints(False)
    assert expected.norm(dim=1).min() > 1
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert kept < 0.15 * all_kept


def test_it_takes_the_place_of_the_cpu_layers(deep: Backbone) -> None:
    """They keep activations of their own; without gradient they are used as ever."""
    expected, _ = gradient(deep, packed=True)
    deep.use_checkpoints(True)
    try:
        ours, _ = gradient(deep, packed=True)
    finally:
        deep.use_checkpoints(False)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_model_that_has_no_layers_for_it_says_so(deep: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deep.checkpoints, "layers", [])
    with pytest.raises(UserError, match=r"gradient_checkpointing: .* lower engine.micro_batch_tokens instead"):
        deep.use_checkpoints(True)
