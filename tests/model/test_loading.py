"""Checkpoints that could be loaded wrongly: each is refused with a message, or gives the right model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.multi_lora import MultiLoraLinear


def load(folder: Path, **settings: object) -> Backbone:
    return Backbone.load(BackboneConfig(model=str(folder), device="cpu", **settings))


def with_tokenizer(source: Path, folder: Path) -> Path:
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("precision", ["nf4", "fp32"])
def test_an_8_bit_checkpoint_is_refused(precision: str, llama_folder: Path, tmp_path: Path) -> None:
    """Its int8 codes would be taken for weights."""
    quantized = AutoModelForCausalLM.from_pretrained(
        llama_folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map={"": "cpu"}
    )
    quantized.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is quantized \(bitsandbytes, 8 bits\), .* give the unquantized model"):
        load(with_tokenizer(llama_folder, tmp_path), precision=precision)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "compressed-tensors"])
def test_other_quantizations_are_refused(method: str, llama_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    model.config.quantization_config = {"quant_method": method, "bits": 4}
    model.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"is quantized \({method}\)"):
        load(with_tokenizer(llama_folder, tmp_path), precision="bf16")


def test_a_4_bit_checkpoint_is_used_as_it_is(llama_folder: Path, tmp_path: Path) -> None:
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    quantized = AutoModelForCausalLM.from_pretrained(
        llama_folder, dtype=torch.float32, quantization_config=settings, device_map={"": "cpu"}
    )
    quantized.save_pretrained(tmp_path)
    made = load(with_tokenizer(llama_folder, tmp_path))
    assert all(linear.quantized for linear in made._linears) and made.describe()["weight_bytes"] > 0
    with pytest.raises(UserError, match=r"is quantized to 4 bits, so backbone.precision cannot be 'fp32'"):
        load(tmp_path, precision="fp32")


def test_an_adapter_is_no_model(llama_folder: Path, tmp_path: Path) -> None:
    """transformers would load its base and lose the adapter."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(llama_folder), LoraConfig(r=2, target_modules=["q_proj"])
    )
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is an adapter, not a model: merge it into its base first"):
        load(with_tokenizer(llama_folder, tmp_path))


def test_missing_weights_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    """transformers would draw them at random, others each time."""
    AutoModelForCausalLM.from_pretrained(llama_folder).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"], weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"2 missing, the first is 'lm_head.weight'. Give a complete causal"):
        load(with_tokenizer(llama_folder, tmp_path))


def test_a_reward_model_is_refused(qwen_folder: Path, tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(qwen_folder).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"1 unexpected, the first is 'score.weight'"):
        load(with_tokenizer(qwen_folder, tmp_path))


def test_a_revision_is_for_the_hub(llama_folder: Path) -> None:
    with pytest.raises(UserError, match=r"backbone.revision 'main' is for models on the Hub"):
        load(llama_folder, revision="main")


def test_a_layer_that_computes_anything_else_is_left_alone(qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass of nn.Linear stays what it is, so the logits are the model's."""
    from transformers.models.qwen2 import modeling_qwen2

    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    built = modeling_qwen2.Qwen2MLP.__init__

    def with_doubled(self: torch.nn.Module, *args: object) -> None:
        built(self, *args)
        self.down_proj = Doubled(self.down_proj.in_features, self.down_proj.out_features, bias=False)

    monkeypatch.setattr(modeling_qwen2.Qwen2MLP, "__init__", with_doubled)
    made = load(qwen_folder, precision="fp32")
    plain = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32).eval()
    tokens = torch.tensor([made.encode("3+4=")])
    with torch.no_grad():
        ours = made.logits(made.states(tokens, torch.ones_like(tokens)))
        torch.testing.assert_close(ours, plain(tokens).logits, rtol=0, atol=1e-5)
    assert {layer.name.rsplit(".", 1)[-1] for layer in made.layout.layers}.isdisjoint({"down_proj"})


def test_weight_and_bias_are_the_layers_own(fp32: Backbone, nf4: Backbone) -> None:
    """Model code may read them, as Jamba's does."""
    for made in (fp32, nf4):
        linear = made.model.model.layers[0].self_attn.q_proj
        assert isinstance(linear, MultiLoraLinear) and linear.weight.shape == (64, 64) and linear.bias.shape == (64,)
        assert torch.equal(linear.weight, linear.dequantized(torch.float32))
