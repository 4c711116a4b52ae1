"""Samplers that may stand in for the engine's own, `rlzoo.engine.sampler`, chosen by `engine.sampler`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor

from rlzoo.config.engine import EngineSettings
from rlzoo.engine.protocol import PolicyRef, SampleRequest, Samples
from rlzoo.model.backbone import Backbone


class Sampler(Protocol):
    """Samples for a local engine, which scores and trains."""

    def sample(self, requests: Sequence[SampleRequest], thetas: Mapping[PolicyRef, Tensor]) -> list[Samples]:
        """Answer all requests; see `rlzoo.engine.sampler.sample`."""
        ...

    def forget(self, run: str) -> None:
        """Drop what is held of a run's policies: later requests may mean others by the same names."""
        ...


def open_sampler(backbone: Backbone, settings: EngineSettings) -> AbstractContextManager[Sampler | None]:
    """Within: the sampler that the settings name; None for the engine's own.

    Raises:
        UserError: it is not installed, or cannot be started on this model.
    """
    if settings.sampler == "local":
        return nullcontext()
    from rlzoo.engine import vllm_sampler

    return vllm_sampler.opened(backbone, settings)
