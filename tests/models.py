"""Tiny random models on disk, in the standard format, for the tests that need a model.

The weights are wide, so that distributions over tokens are far from uniform and a wrong position or mask cannot hide.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from rlzoo.model.backbone import Backbone
from rlzoo.model.char_tokenizer import char_tokenizer

CONTEXT = 160
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def write_model(model: type[PreTrainedModel], config: type, folder: Path, **changes: object) -> Path:
    """Write a random model (a pure function of its configuration) with the character tokenizer."""
    tokenizer = char_tokenizer(CONTEXT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model(config(**{"vocab_size": len(tokenizer), **SIZES, **changes}))
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_adapter(backbone: Backbone, seed: int, size: float = 0.05) -> torch.Tensor:
    """An adapter as after training: nothing in it is zero, value head included."""
    noise = torch.randn(backbone.layout.size, generator=torch.Generator().manual_seed(seed))
    return backbone.new_adapter(seed) + size * noise.to(backbone.device)
