"""A model whose weights are on a server: its tokenizer, end tokens and sizes, and nothing that computes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlzoo.config.model import BackboneConfig
from rlzoo.model import hub
from rlzoo.model.prompts import Prompts


class RemoteModel:
    """The tokenizer of a model that a server computes, as `Backbone` has it: a `rlzoo.engine.protocol.Codec`.

    Attributes: config, tokenizer, pad_id, end_ids, vocab_size, context_length (None: unlimited), device (of the tensors
    that losses are computed on).
    """

    device = "cpu"

    def __init__(self, config: BackboneConfig) -> None:
        """Load what describes the model.

        Raises:
            UserError: its tokenizer or its config.json cannot be found or read.
        """
        self.config = config
        settings, self.tokenizer = hub.load_described(config, hub.locate(config.model))
        text = settings.get_text_config()
        self.vocab_size: int = text.vocab_size
        self.context_length = hub.context_length(text)
        self.pad_id = hub.pad_id(self.tokenizer, config.pad_token, config.model)
        self.end_ids = hub.end_ids(settings, self.tokenizer, config)
        self._prompts = Prompts(self.tokenizer, config, self.end_ids, self.vocab_size)

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """See `Codec.encode`."""
        return self._prompts.encode(prompt)

    def encode_continuation(self, text: str) -> list[int]:
        """See `Codec.encode_continuation`."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def encode_response(self, text: str) -> list[int]:
        """See `Codec.encode_response`."""
        end = self.tokenizer.eos_token_id
        return [*self.encode_continuation(text), self.end_ids[0] if end is None else end]

    def decode(self, ids: list[int] | Tensor) -> str:
        """See `Codec.decode`."""
        return hub.decode(self.tokenizer, self.end_ids, ids)
