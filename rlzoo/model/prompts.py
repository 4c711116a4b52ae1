"""From a prompt to tokens: text as the tokenizer has it, chats through the model's template.

The same prompt gives the same tokens on every day and machine: a template that prints today's date gets a fixed one.
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
    """Encodes the prompts of one model. `end_ids`: the tokens that end a response; `rows`: of the embedding."""

    def __init__(self, tokenizer: Any, config: BackboneConfig, end_ids: list[int], rows: int) -> None:
        self._tokenizer, self._config, self._end_ids, self._rows = tokenizer, config, end_ids, rows
        self._turn_checked = False

    def encode(self, prompt: str | Messages) -> list[int]:
        """Return the tokens of a text, or of a list of chat messages followed by the opening of the model's turn.

        Raises:
            UserError: chat messages and no chat template, a template that refuses them, or a token that the model does
                not know.
        """
        return self._known(self._text(prompt) if isinstance(prompt, str) else self._messages(prompt))

    def _known(self, ids: list[int]) -> list[int]:
        """The tokens, if the embedding has a row for each: on a GPU one beyond it ends the whole process."""
        if ids and max(ids) >= self._rows:
            token = self._tokenizer.convert_ids_to_tokens(max(ids))
            raise UserError(
                f"{self._config.model!r} knows {self._rows} tokens, but its tokenizer makes token {max(ids)} "
                f"({token!r}) of a prompt: resize the model's embedding, or remove the token from the tokenizer"
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
        """A prompt that begins with the begin token gets no second one, and no end token is put behind it."""
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
            hint = "; put the system message into the user's" if "system" in roles else ""
            raise UserError(
                f"the chat template of {self._config.model!r} refuses messages of the roles {roles}: {error}{hint}"
            ) from error

    def _check_turn(self) -> None:
        """Warn if what closes the model's turn in the template ends no response: it would go on to its limit."""
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
                f"the chat template of {self._config.model!r} closes a turn with {mark!r}, which ends no response: set "
                f"backbone.end_tokens = [{mark!r}]",
                stacklevel=4,
            )

    def _last_of(self, text: str) -> int:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"][-1]


def _calendar(today: date) -> str:
    """A Jinja macro in the place of the `strftime_now` that transformers gives templates; it ignores the clock."""
    words = "".join(f".replace('{code}', '{today.strftime(code)}')" for code in DATE_CODES)
    return "{%- macro strftime_now(form) -%}{{ form" + words + " }}{%- endmacro -%}"
