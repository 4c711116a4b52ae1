"""A character tokenizer: one token per printable ASCII character, in the format that AutoTokenizer loads."""

from __future__ import annotations

import string
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"
TOKENS = (PAD, END, UNKNOWN, *sorted(c for c in string.printable if c.isprintable()), "\n")


def char_tokenizer(context_length: int, tokens: Sequence[str] = TOKENS) -> PreTrainedTokenizerFast:
    """Return a tokenizer: pad 0, end 1, unknown 2, then characters. Encoding adds no special token."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )
