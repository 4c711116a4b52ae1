"""Small random models of many architectures: each gives transformers' logits, or is refused by name.

For those that load, the trainer's log-probs of a sampled response equal the sampler's, through an adapter: prefill,
cached steps, padding and packing agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rlzoo.config.model import BackboneConfig, LoraSettings
from rlzoo.engine.protocol import SampleRequest
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward
from rlzoo.model.packing import PACKABLE
from tests.models import SIZES, char_tokenizer, random_adapter, write_model
from tests.sampling import named, sample

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
FULL = {"layer_types": ["full_attention"] * 2}
GPT = {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 160}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}

PACKED: dict[str, dict[str, Any]] = {
    "apertus": {},
    "cohere": {},
    "cohere2": FULL,
    "ernie4_5": {},
    "exaone4": {"sliding_window": None, **FULL},
    "gemma": {"head_dim": 16},
    "glm": {"head_dim": 16},
    "glm4": {"head_dim": 16},
    "gpt2": GPT,
    "gpt_neox": {},
    "granite": {"residual_multiplier": 0.5},
    "helium": {"head_dim": 16},
    "hunyuan_v1_dense": {"head_dim": 16},
    "llama": {},
    "mistral": {"sliding_window": None},
    "mixtral": LOCAL,
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": EXPERTS | {"head_dim": 16},
    "seed_oss": {"head_dim": 16},
    "smollm3": {"no_rope_layer_interval": 2},
    "starcoder2": {"sliding_window": None},
}
PADDED: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "deepseek_v3": LATENT
    | {"num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1}
    | {"moe_intermediate_size": 32, "first_k_dense_replace": 1},
    "falcon": {},
    "gemma2": {"head_dim": 16},
    "gpt_oss": LOCAL | {"head_dim": 16},
    "jamba": {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    "phimoe": LOCAL,
}


def load(kind: str, changes: dict[str, Any], folder: Path, **lora: Any) -> Backbone:
    config = transformers.CONFIG_MAPPING[kind]
    write_model(transformers.MODEL_FOR_CAUSAL_LM_MAPPING[config], config, folder, **changes)
    settings = LoraSettings(**lora)
    return Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu", lora=settings))


def gap(made: Backbone) -> float:
    """Largest distance of the sampler's and the trainer's log-probs, through an adapter."""
    policy, prompts = named(random_adapter(made, 1)), [made.encode("3+4="), made.encode("sort 52413")]
    request = SampleRequest(policy, prompts, 2, 12, seed=0, step=0, prompt_keys=[0, 1])
    (got,) = sample(made, [request])
    stack, group_B = made.stack([random_adapter(made, 1)], requires_grad=True), torch.arange(4) // 2
    out = policy_forward(made, stack, torch.zeros(4).long(), prompts, group_B, got.response_NT, got.mask_NT, value=True)
    out.logp_BT.sum().backward()
    assert stack.grads()[0, : -made.layout.head_size].count_nonzero() > 0.5 * made.layout.size
    return float((out.logp_BT.detach() - got.logp_NT).abs().max())


@pytest.mark.parametrize("kind", PACKED)
def test_packed(kind: str, tmp_path: Path) -> None:
    made = load(kind, PACKED[kind], tmp_path)
    assert made.path.startswith("packed") and gap(made) < 3e-5


@pytest.mark.parametrize("kind", PADDED)
def test_padded(kind: str, tmp_path: Path) -> None:
    made = load(kind, PADDED[kind], tmp_path)
    assert made.path == "padded" and gap(made) < 3e-5


def test_every_kind_that_is_packed_is_tested() -> None:
    assert set(PACKED) == PACKABLE


@pytest.mark.parametrize(
    ("kind", "changes", "lora", "message"),
    [
        ("mamba2", {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 2}, {}, "Mamba"),
        (
            "mamba2",
            {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 2},
            {"target_modules": ["in_proj"]},
            "Mamba2ForCausalLM .*cannot be used as a backbone|cannot be used as a backbone: Mamba2ForCausalLM",
        ),
        (
            "recurrent_gemma",
            {"lru_width": 64, "attention_window_size": 32, "num_hidden_layers": 3, "head_dim": 16},
            {},
            "RecurrentGemmaForCausalLM computes other logits with padding",
        ),
        ("rwkv", {"attention_hidden_size": 64}, {}, "RwkvForCausalLM computes other logits with padding"),
        ("openai-gpt", GPT, {}, "OpenAIGPTLMHeadModel raised RuntimeError"),
        (
            "opt",
            PADDED["opt"],
            {"target_modules": ["fc1", "q_proj"]},
            r"selects 'model.decoder.layers.0.fc1' .* Layers that can: k_proj, out_proj, project_in",
        ),
        ("jamba", PADDED["jamba"], {"target_modules": ["dt_proj"]}, "'model.layers.0.mamba.dt_proj' .* whole rows"),
        (
            "mixtral",
            LOCAL,
            {"target_modules": ["gate"]},
            "linear layers of the text decoder can be adapted: k_proj",
        ),
        ("phimoe", LOCAL, {"target_modules": ["router"]}, "a PhimoeTopKRouter; only linear layers"),
    ],
)
def test_refused_by_name(
    kind: str, changes: dict[str, Any], lora: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load(kind, changes, tmp_path, **lora)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "deepseek_v3", "phimoe"])
def test_all_linear_of_a_model_with_experts_is_its_attention(kind: str, tmp_path: Path) -> None:
    """Experts and routers are given selected tokens, not whole rows."""
    made = load(kind, {**PACKED, **PADDED}[kind], tmp_path)
    assert all("self_attn" in layer.name for layer in made.layout.layers)
    assert len(made.layout.layers) >= 8


def test_the_text_decoder_of_a_model_with_a_vision_tower(tmp_path: Path) -> None:
    """An adapter in the vision tower would never get a gradient."""
    text = {**SIZES, "vocab_size": 300, "head_dim": 16}
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    images = {"image_token_index": 290, "boi_token_index": 291, "eoi_token_index": 292, "mm_tokens_per_image": 4}
    sizes = {"text_config": text, "vision_config": vision | {"image_size": 28, "patch_size": 14}}
    config = transformers.Gemma3Config(**sizes, **images)
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    char_tokenizer(160).save_pretrained(tmp_path)
    made = Backbone.load(BackboneConfig(model=str(tmp_path), precision="fp32", device="cpu"))
    assert len(made.layout.layers) == 2 * 7 and not any("vision" in layer.name for layer in made.layout.layers)
    assert gap(made) < 3e-5


def test_rope_that_moves_limits_the_context(tmp_path: Path) -> None:
    """Beyond 32 positions new keys have the long factors, cached ones the short."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 1e4}
    rope |= {"original_max_position_embeddings": 32}
    made = load("phi3", {"rope_parameters": rope, "original_max_position_embeddings": 32}, tmp_path)
    assert made.context_length == 32
