"""The base class of all settings: frozen and closed, with finite numbers."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from rlzoo.config.limits import LARGEST_FLOAT, LARGEST_INT


class Settings(BaseModel):
    """Base of all settings: frozen and closed. Numbers are finite, so that the stored configuration is valid JSON.

    Whole numbers have at most 64 bits and others fit float32; text has whole characters and no NUL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _can_be_held(self) -> Self:
        for name in type(self).model_fields:
            refuse_unholdable(name, getattr(self, name))
        return self


def refuse_unholdable(name: str, value: Any) -> None:
    """Raise ValueError for a number beyond 64 bits or float32, and for text that no file can hold."""
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise ValueError(f"{name} has more than 64 bits: {str(value)[:24]}...")
    if isinstance(value, float) and abs(value) > LARGEST_FLOAT:
        raise ValueError(f"{name} = {value:g} is beyond float32, which ends at {LARGEST_FLOAT:g}")
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
        raise ValueError(f"{name} has a NUL or half a character: {value[:60]!r}")
    if isinstance(value, (tuple, list)):
        for item in value:
            refuse_unholdable(name, item)
    if isinstance(value, dict):
        for key, item in value.items():
            refuse_unholdable(name, key)
            refuse_unholdable(f"{name}.{key}", item)
