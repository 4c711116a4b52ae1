"""Sampling, scoring and updating: the engine protocol (data only) and the engines that implement it.

The training loop, the experiments and the report import `rlzoo.engine.protocol` and the functions of this file, which
open an engine. Not here: rewards, credit and run folders. Models and engines are imported on first use.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlzoo.config.engine import EngineSettings
    from rlzoo.config.model import BackboneConfig
    from rlzoo.engine.protocol import Engine, EngineInfo


def load_model(config: BackboneConfig) -> Any:
    """Load the model that settings name, for `open_engine`. It is a `protocol.Codec` too.

    Raises:
        UserError: it cannot be found or used.
    """
    from rlzoo.model.backbone import Backbone

    return Backbone.load(config)


def model_info(model: Any) -> EngineInfo:
    """Return the `EngineInfo` of an engine on this model, without opening one."""
    from rlzoo.engine.local import info_of

    return info_of(model)


def describe_model(model: Any, settings: EngineSettings) -> dict[str, Any]:
    """Return what a run folder records about the model: revision, size, precision, and the paths that compute it."""
    model.use_fast_path(settings.fast_path)
    return model.describe()


def open_engine(model: Any, settings: EngineSettings) -> AbstractAsyncContextManager[Engine]:
    """Open an engine on a model that was loaded: `async with open_engine(model, settings) as engine`."""
    from rlzoo.engine.local import opened

    return opened(model, settings)
