"""Models with random weights: speed depends on shapes, not on values."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlzoo.model.char_tokenizer import TOKENS, char_tokenizer


class Shape(BaseModel):
    """Sizes of a Qwen2 model; the defaults are those of the shipped one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    mlp_size: int = 384
    vocabulary: int = 128
    context: int = 1024
    tied: bool = True


SHAPES = {
    # config.json of Qwen/Qwen2.5-0.5B
    "qwen2.5-0.5b-shape": Shape(
        hidden_size=896, layers=24, heads=14, kv_heads=2, mlp_size=4864, vocabulary=151936, context=32768
    ),
    # config.json of Qwen/Qwen2.5-1.5B-Instruct
    "qwen2.5-1.5b-shape": Shape(
        hidden_size=1536, layers=28, heads=12, kv_heads=2, mlp_size=8960, vocabulary=151936, context=32768
    ),
}


def write(shape: Shape, folder: Path, mean_length: int | None = None, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random model and a tokenizer of its vocabulary into a folder, and return the folder.

    With `mean_length`, one in `mean_length` tokens ends a response. Lengths are then about geometric with this mean
    (exactly if the model were uniform).
    """
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.mlp_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).to(dtype)
    ends = [1, *range(2, shape.vocabulary, mean_length)] if mean_length else [1]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=0, do_sample=True, top_k=0)
    model.save_pretrained(folder)
    tokenizer(shape.vocabulary, shape.context).save_pretrained(folder)
    return folder


def tokenizer(vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of characters: those of the shipped model, then the code points from U+10000 on."""
    more = map(chr, range(0x10000, 0x10000 + vocabulary - len(TOKENS)))
    return char_tokenizer(context, [*TOKENS, *more][:vocabulary])
