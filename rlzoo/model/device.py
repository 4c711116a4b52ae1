"""The device of a backbone and the dtype of its activations, from the settings."""

from __future__ import annotations

import torch

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError


def resolve_device(config: BackboneConfig) -> torch.device:
    """Return the device that `config.device` names; "auto" is a GPU if there is one.

    Raises:
        UserError: torch does not know the name, or the device is not available.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=config.device)
        if torch.device(config.device).type == "meta":
            raise RuntimeError("tensors on it have no data")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"backbone.device {config.device!r} cannot be used ({reason}): try auto or cpu") from error
    return torch.device(config.device)


def resolve_compute(config: BackboneConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of activations. `config.compute` "auto": float32 on a CPU or for fp32 weights, else bfloat16."""
    full = config.compute == "fp32" or (
        config.compute == "auto" and (device.type == "cpu" or config.precision == "fp32")
    )
    return torch.float32 if full else torch.bfloat16
