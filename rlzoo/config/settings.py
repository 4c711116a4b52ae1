"""The base class of all settings: frozen and closed, with finite numbers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all settings: frozen and closed. Numbers are finite, so that the stored configuration is valid JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
