"""Sampling, scoring and updating: the engine protocol (data only) and the engines that implement it.

The training loop, the experiments and the report import `rlzoo.engine.protocol` and the functions of this file, which
open an engine. Not here: rewards, credit and run folders. Models and engines are imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from rlzoo.errors import UserError

if TYPE_CHECKING:
    from rlzoo.config.engine import EngineSettings
    from rlzoo.config.model import BackboneConfig
    from rlzoo.engine.protocol import Engine, EngineInfo


def load_model(config: BackboneConfig, settings: EngineSettings | None = None) -> Any:
    """Load the model that settings name, for `open_engine`. It is a `protocol.Codec` too.

    Args:
        settings: of the engine; with a server's name the model is there, and what is loaded is the way to it.

    Raises:
        UserError: it cannot be found or used, or the server cannot be reached.
    """
    if settings is not None and settings.name == "tinker":
        from rlzoo.engine.tinker_model import TinkerModel

        return TinkerModel(config, settings)
    from rlzoo.model.backbone import Backbone

    return Backbone.load(config)


def check_model(model: Any, settings: EngineSettings, max_grad_norms: Iterable[float]) -> None:
    """Refuse a model that is not where the settings say, and runs that its server would train otherwise.

    Raises:
        UserError: the model is here and the engine a server; or gradients are to be clipped at these norms, and the
            server does not clip.
    """
    if hasattr(model, "server"):
        model.check(max_grad_norms)
    elif settings.name == "tinker":
        raise UserError("a Tinker server has its own model: name it (backbone.model), give no object")


def model_info(model: Any, settings: EngineSettings) -> EngineInfo:
    """Return the `EngineInfo` of an engine on this model, without opening one."""
    if hasattr(model, "server"):
        return model.info()
    from rlzoo.engine.local import info_of

    return info_of(model, settings)


def describe_model(model: Any, settings: EngineSettings) -> dict[str, Any]:
    """Return what a run folder records about the model: revision, size, precision, and the paths that compute it."""
    if hasattr(model, "server"):
        return model.describe()
    model.use_fast_path(settings.fast_path)
    described = model.describe()
    if settings.sampler == "vllm":
        from rlzoo.engine.vllm_sampler import installed_version

        described["sampler"] = f"vllm {installed_version()}"
    return described


def open_engine(model: Any, settings: EngineSettings) -> AbstractAsyncContextManager[Engine]:
    """Open an engine on a model that was loaded: `async with open_engine(model, settings) as engine`."""
    if hasattr(model, "server"):
        from rlzoo.engine.tinker import opened as opened_there

        return opened_there(model, settings)
    from rlzoo.engine.local import opened

    return opened(model, settings)
