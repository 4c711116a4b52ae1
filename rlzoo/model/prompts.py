"""Prompts as tokens: plain text through the tokenizer, chats through the model's chat template.

The same prompt gives the same tokens on any day and machine: a template that prints the date gets a fixed one.
"""

from __future__ import annotations

import warnings
from datetime import date
from typing import Any

from jinja2 import TemplateError

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError

DATE_CODES = ("%Y", "%y", "%m", "%B", "%b", "%d", "%e", "%j", "%A", "%a", "%H", "%I", "%M", "%S", "%f", "%p")
Messages = list[dict[str, Any]]


class Prompts:
    """Encodes the prompts of one model.

    Args:
        end_ids: tokens that end a response.
        rows: number of rows of the embedding.
    """

    def __init__(self, tokenizer: Any, config: BackboneConfig, end_ids: list[int], rows: int) -> None:
        self._tokenizer, self._config, self._end_ids, self._rows = tokenizer, config, end_ids, rows
        self._turn_checked = False

    def encode(self, prompt: str | Messages) -> list[int]:
        """Return the tokens of a text, or of chat messages followed by the start of the model's turn.

        Raises:
            UserError: chat messages without a chat template, a template that refuses them, or a token without a row in
                the model's embedding.
        """
        return self._known(self._text(prompt) if isinstance(prompt, str) else self._messages(prompt))

    def _known(self, ids: list[int]) -> list[int]:
        """Return the tokens if the embedding has a row for each. On a GPU, a missing row would abort the process."""
        if ids and max(ids) >= self._rows:
            token = self._tokenizer.convert_ids_to_tokens(max(ids))
            raise UserError(
                f"the embedding of {self._config.model!r} has {self._rows} rows, but its tokenizer returns token "
                f"{max(ids)} ({token!r}) for a prompt: resize the embedding, or remove the token from the tokenizer"
            )
        return ids

    def _messages(self, prompt: Messages) -> list[int]:
        if not self._tokenizer.chat_template:
            raise UserError(
                f"the prompt is a list of chat messages, but the tokenizer of {self._config.model!r} has no chat "
                "template: use a chat model, or give the prompt as one text"
            )
        if not self._turn_checked:
            self._turn_checked = True
            self._check_turn()
        return self._chat(prompt, add_generation_prompt=True)

    def _text(self, prompt: str) -> list[int]:
        """Return the tokens of a text, with at most one begin token and without an end token of the tokenizer's."""
        tokenizer = self._tokenizer
        ids = tokenizer(prompt)["input_ids"]
        if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
            ids = ids[1:]
        if ids and ids[-1] == tokenizer.eos_token_id:
            plain = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            ids = ids if plain and plain[-1] == tokenizer.eos_token_id else ids[:-1]
        return ids

    def _chat(self, messages: Messages, **more: Any) -> list[int]:
        template = self._tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = _calendar(date.fromisoformat(self._config.date)) + template
        arguments = {"chat_template": template, **self._config.chat_template_kwargs, **more}
        try:
            return self._tokenizer.apply_chat_template(messages, return_dict=True, **arguments)["input_ids"]
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            hint = "; move the system message into the user's message" if "system" in roles else ""
            raise UserError(
                f"the chat template of {self._config.model!r} refuses messages with the roles {roles}: {error}{hint}"
            ) from error

    def _check_turn(self) -> None:
        """Warn if the token that closes a turn in the template is no end token: responses would run to the limit."""
        question = [{"role": "user", "content": "?"}]
        try:
            whole = self._chat([*question, {"role": "assistant", "content": "!"}])
        except UserError:
            return
        marks = self._tokenizer.added_tokens_decoder
        after = whole[len(whole) - whole[::-1].index(self._last_of("!")) :] if self._last_of("!") in whole else []
        closing = next((token for token in after if token in marks), None)
        if closing is not None and closing not in self._end_ids:
            mark = self._tokenizer.convert_ids_to_tokens(closing)
            warnings.warn(
                f"the chat template of {self._config.model!r} closes a turn with {mark!r}, which is not an end token: "
                f"set backbone.end_tokens = [{mark!r}]",
                stacklevel=4,
            )

    def _last_of(self, text: str) -> int:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"][-1]


def _calendar(today: date) -> str:
    """Return a Jinja macro that replaces transformers' `strftime_now` and uses a fixed date."""
    words = "".join(f".replace('{code}', '{today.strftime(code)}')" for code in DATE_CODES)
    return "{%- macro strftime_now(form) -%}{{ form" + words + " }}{%- endmacro -%}"
