"""The CPU layers against transformers' own: states, gradients, samples; and which models they are used for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from rlzoo.config.model import BackboneConfig, LoraSettings
from rlzoo.engine.protocol import SampleRequest, Samples
from rlzoo.model.backbone import Backbone
from rlzoo.model.cpu import attention
from rlzoo.model.cpu.llama import LlamaLayers
from rlzoo.model.log_probs import policy_forward
from tests.models import random_adapter, write_model
from tests.sampling import named, sample


@pytest.fixture(params=["own weights", "shared weights"])
def rows_each(request: pytest.FixtureRequest) -> int:
    """Responses of each run: with few, adapters have no weights of their own."""
    return 16 if request.param == "own weights" else 2


def scored(backbone: Backbone, rows_each: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and values of three runs' responses, the gradient of both, and log-probs of the bare model."""
    seeded = torch.Generator().manual_seed(3)
    rows = 3 * rows_each
    response = torch.randint(5, 60, (rows, 12), generator=seeded)
    mask = torch.arange(12) < torch.randint(1, 13, (rows, 1), generator=seeded)
    prompts = [backbone.encode("sort 5241"), backbone.encode("1+2")]
    group = torch.arange(rows) % 2
    stack = backbone.stack([random_adapter(backbone, k) for k in range(3)], requires_grad=True)
    slot = torch.arange(3).repeat_interleave(rows_each)
    with backbone.held_weights():
        out = policy_forward(backbone, stack, slot, prompts, group, response, mask, value=True)
        weight = torch.randn(out.logp_BT.shape, generator=seeded)
        (out.logp_BT * weight + out.value_BT * weight.square()).sum().backward()
        with torch.no_grad():
            bare = policy_forward(backbone, None, None, prompts, group, response, mask).logp_BT
    return torch.stack([out.logp_BT, out.value_BT]).detach(), stack.grads(), bare


def sampled(backbone: Backbone) -> list[Samples]:
    """Of two runs, some of whose rows leave the batch, with the bare model and without."""
    thetas = [random_adapter(backbone, 1), random_adapter(backbone, 2), None]
    words = ["sort 5241", "1+2", "9"]
    requests = [
        SampleRequest(named(theta), [backbone.encode(word) for word in words], 5, 20, 0, 7, [3, 4, 5])
        for theta in thetas
    ]
    return [*sample(backbone, requests), *sample(backbone, requests[:2])]


def test_log_probs_values_and_gradients(backbone: Backbone, rows_each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backbone._cpu_layers is not None
    ours = scored(backbone, rows_each)
    monkeypatch.setattr(backbone, "_cpu_layers", None)
    for one, other in zip(ours, scored(backbone, rows_each), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6 * float(other.abs().max()))


def test_samples(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = sampled(backbone)
    monkeypatch.setattr(backbone, "_cpu_layers", None)
    for one, other in zip(ours, sampled(backbone), strict=True):
        assert torch.equal(one.response_NT, other.response_NT) and torch.equal(one.mask_NT, other.mask_NT)
        torch.testing.assert_close(one.logp_NT, other.logp_NT, rtol=0, atol=2e-5)


def test_long_sequences_are_left_to_transformers(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of 9 tokens with responses of 12: longer than 16."""
    samples, ours = sampled(fp32), scored(fp32, 2)
    monkeypatch.setattr(attention, "SHORT", 16)

    def refuse(*args: object) -> Tensor:
        raise AssertionError

    monkeypatch.setattr(fp32._cpu_layers, "packed_states", refuse)
    for one, other in zip(ours, scored(fp32, 2), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6 * float(other.abs().max()))
    for one, other in zip(samples, sampled(fp32), strict=True):
        assert torch.equal(one.response_NT, other.response_NT)


@pytest.mark.parametrize(
    ("model", "config", "changes", "used"),
    [
        (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True, "head_dim": 24}, True),
        (LlamaForCausalLM, LlamaConfig, {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, True),
        (MistralForCausalLM, MistralConfig, {"sliding_window": None, "num_key_value_heads": 1}, True),
        (MistralForCausalLM, MistralConfig, {"sliding_window": 6}, False),
        (LlamaForCausalLM, LlamaConfig, {"hidden_act": "gelu"}, False),
        (GraniteForCausalLM, GraniteConfig, {"residual_multiplier": 0.5}, False),
        (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}, False),  # it norms queries and keys
        (GPT2LMHeadModel, GPT2Config, {"n_embd": 32, "n_head": 2, "n_layer": 2}, False),
        (PhiForCausalLM, PhiConfig, {"partial_rotary_factor": 0.5}, False),
        (SmolLM3ForCausalLM, SmolLM3Config, {"no_rope_layer_interval": 2}, False),
    ],
)
def test_which_models_are_of_this_kind(
    model: type[PreTrainedModel],
    config: type,
    changes: dict[str, object],
    used: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_model(model, config, tmp_path, **changes)
    made = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    assert (made._cpu_layers is not None) is used
    ours = scored(made, 2)
    monkeypatch.setattr(made, "_cpu_layers", None)
    for one, other in zip(ours, scored(made, 2), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6 * float(other.abs().max()))


def test_only_float32_on_a_cpu(llama_folder: Path) -> None:
    """In bfloat16 their attention would round its scores, so transformers' layers and SDPA decode there."""
    made = Backbone.load(BackboneConfig(model=str(llama_folder), device="cpu", precision="bf16", compute="bf16"))
    assert made._cpu_layers is None and made.path == "packed"
    assert LlamaLayers.of(made._decoder, torch.float32, torch.device("cpu")) is not None
    assert LlamaLayers.of(made._decoder, torch.float32, torch.device("cuda")) is None


def test_a_subclass_is_not_used(llama_folder: Path) -> None:
    """It may compute anything else."""
    made = Backbone.load(BackboneConfig(model=str(llama_folder), device="cpu"))
    made._decoder.__class__ = type("Other", (LlamaModel,), {})
    assert LlamaLayers.of(made._decoder, torch.float32, torch.device("cpu")) is None


@pytest.mark.parametrize("modules", [["q_proj", "v_proj", "down_proj"], ["q_proj"], ["gate_proj"], ["o_proj"]])
def test_adapters_on_some_of_the_layers(
    modules: list[str], llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded by both: the CPU layers up to 25 positions, then by transformers."""
    made = Backbone.load(
        BackboneConfig(model=str(llama_folder), device="cpu", lora=LoraSettings(target_modules=modules))
    )
    assert made._cpu_layers is not None

    def got() -> tuple[tuple[Tensor, ...], list[Samples]]:
        one = SampleRequest(named(random_adapter(made, 1)), [made.encode("1+2")], 70, 30, 0, 7, [3])
        return scored(made, 16), [*sampled(made), *sample(made, [one])]

    monkeypatch.setattr(attention, "SHORT", 25)
    tensors, samples = got()
    monkeypatch.setattr(made, "_cpu_layers", None)
    same_tensors, same_samples = got()
    for one, other in zip(tensors, same_tensors, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6 * float(other.abs().max()))
    for one, other in zip(samples, same_samples, strict=True):
        assert torch.equal(one.response_NT, other.response_NT)
        torch.testing.assert_close(one.logp_NT, other.logp_NT, rtol=0, atol=2e-5)


def test_a_nan_in_one_run_stays_in_that_run(fp32: Backbone, rows_each: int) -> None:
    """With padding in the line and in the blocks: the other run has shorter responses, and one of a single token."""
    thetas = [random_adapter(fp32, 1), torch.full_like(random_adapter(fp32, 1), torch.nan)]
    prompts, slot = [fp32.encode("sort 52"), fp32.encode("1+2")], torch.arange(2).repeat_interleave(rows_each)
    length = torch.where(slot == 0, 6, 12) + torch.arange(2 * rows_each) % 3
    length[0] = 1
    mask = torch.arange(14) < length[:, None]
    for nan in (0, 1):
        stack = fp32.stack(thetas if nan == 1 else thetas[::-1], requires_grad=True)
        group = torch.arange(len(mask)) % 2
        out = policy_forward(fp32, stack, slot, prompts, group, torch.full(mask.shape, 7), mask)
        out.logp_BT[mask].sum().backward()
        is_nan = (slot == nan)[:, None].expand(mask.shape)[mask]
        assert torch.equal(out.logp_BT[mask].isnan(), is_nan)
        assert stack.grads()[1 - nan].isfinite().all() and stack.grads()[1 - nan].any()


def test_bare_rows_in_a_line_with_gradient(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows without an adapter beside three with one: what they say is the base model's."""
    prompts = [backbone.encode("sort 52"), backbone.encode("1+2")]
    group, slot = torch.arange(5) % 2, torch.tensor([-1, -1, 0, 0, 1])
    response = torch.randint(5, 60, (5, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(5, 9, dtype=torch.bool)

    def got() -> tuple[Tensor, Tensor]:
        stack = backbone.stack([random_adapter(backbone, k) for k in (1, 2)], requires_grad=True)
        out = policy_forward(backbone, stack, slot, prompts, group, response, mask).logp_BT
        out.square().sum().backward()
        return out.detach(), stack.grads()

    ours = got()
    bare = policy_forward(backbone, None, None, prompts, group[:2], response[:2], mask[:2]).logp_BT.detach()
    torch.testing.assert_close(ours[0][:2], bare, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(backbone, "_cpu_layers", None)
    for one, other in zip(ours, got(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6 * float(other.abs().max()))


def test_weights_are_the_same_afterwards(backbone: Backbone) -> None:
    before = {name: x.clone() for name, x in backbone.model.state_dict().items()}
    scored(backbone, 16)
    sampled(backbone)
    for name, x in backbone.model.state_dict().items():
        assert torch.equal(x, before[name]), name
