"""Prompts as tokens: no doubled special tokens, no dependence on the date, clear errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model import hub
from rlzoo.model.prompts import Prompts

CHAT = (
    "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<turn>{% endif %}"
)
MARKS = ["<begin>", "<turn>", "<end>", "<eos>"]


def tokenizer_of(chat: str | None = CHAT, added: str | None = None) -> Any:
    """Bytes after the four marks; `added`: what the tokenizer puts around a text, such as `<begin> $A <eos>`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: i for i, token in enumerate([*MARKS, *letters])}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if added:
        special = [("<begin>", 0), ("<eos>", 3)]
        made.post_processor = TemplateProcessing(single=added, special_tokens=special)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<begin>", eos_token="<eos>", additional_special_tokens=["<turn>", "<end>"]
    )
    wrapped.chat_template = chat
    return wrapped


@pytest.fixture
def encode() -> Callable[..., str]:
    def run(
        prompt: Any, chat: str | None = CHAT, added: str | None = None, ends: tuple[int, ...] = (2, 3), **config: Any
    ) -> str:
        tokenizer = tokenizer_of(chat, added)
        prompts = Prompts(
            tokenizer, BackboneConfig.model_validate({"model": "m", **config}), list(ends), len(tokenizer)
        )
        return tokenizer.decode(prompts.encode(prompt))

    return run


USER = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("added", "prompt", "tokens"),
    [
        ("<begin> $A", "hi", "<begin>hi"),
        ("<begin> $A", "<begin>hi", "<begin>hi"),  # not twice
        ("$A <eos>", "hi", "hi"),  # a prompt is no finished text
        ("<begin> $A", "hi<eos>", "<begin>hi<eos>"),  # whoever wrote the end meant it
        ("<begin> $A <eos>", "<begin>hi", "<begin>hi"),
        (None, "hi", "hi"),
    ],
)
def test_nothing_is_doubled(encode: Callable[..., str], added: str | None, prompt: str, tokens: str) -> None:
    assert encode(prompt, added=added) == tokens


def test_a_chat_goes_through_the_template(encode: Callable[..., str]) -> None:
    assert encode(USER, added="<begin> $A <eos>") == "<turn>user\nhi<end><turn>"
    with pytest.raises(UserError, match="has no chat template"):
        encode(USER, chat=None)


def test_the_template_is_given_its_arguments_and_a_fixed_day(encode: Callable[..., str]) -> None:
    chat = "{{ strftime_now('%d %b %Y') }}{% if thinking is defined and not thinking %}/no{% endif %}" + CHAT
    rest = "<turn>user\nhi<end><turn>"
    assert encode(USER, chat=chat) == "26 Jul 2024" + rest
    assert encode(USER, chat=chat, date="2025-01-02") == "02 Jan 2025" + rest
    assert encode(USER, chat=chat, chat_template_kwargs={"thinking": False}) == "26 Jul 2024/no" + rest
    with pytest.raises(ValidationError, match="write it as YYYY-MM-DD"):
        BackboneConfig(date="today")


def test_a_template_that_refuses_is_named_with_a_way_out(encode: Callable[..., str]) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    with pytest.raises(UserError, match=r"'m' refuses messages with the roles system, user: No system role; move"):
        encode([{"role": "system", "content": "brief"}, *USER], chat=refusing + CHAT)


def test_a_turn_that_never_ends_is_said(encode: Callable[..., str]) -> None:
    with pytest.warns(UserWarning, match=r"closes a turn with '<end>', which is not an end token: set backbone"):
        encode(USER, ends=(3,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(USER)


def test_end_tokens_are_added_to_what_the_model_declares() -> None:
    tokenizer = tokenizer_of()
    assert hub.end_ids(None, tokenizer, BackboneConfig(end_tokens=("<end>",))) == [2, 3]
    with pytest.raises(UserError, match="end_tokens '<stop>' is not in the vocabulary"):
        hub.end_ids(None, tokenizer, BackboneConfig(model="m", end_tokens=("<stop>",)))


def test_settings_of_a_model_can_be_a_key() -> None:
    one, other = (BackboneConfig(chat_template_kwargs={"a": i}) for i in (1, 2))
    assert len({one: 0, other: 1, one.model_copy(): 2}) == 2
