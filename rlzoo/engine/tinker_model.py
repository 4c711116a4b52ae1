"""A model on a server of the Tinker API: its tokenizer here, and the connection to the server with what it promises."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlzoo.config.engine import EngineSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.engine.driver import drive
from rlzoo.engine.protocol import EngineInfo
from rlzoo.engine.tinker_probe import Conventions, measure
from rlzoo.engine.tinker_server import SDK, Server
from rlzoo.errors import UserError
from rlzoo.model.remote import RemoteModel

NEVER_CLIPS = 1e6
"""From here on `max_grad_norm` is no clip."""


class TinkerModel(RemoteModel):
    """The model, its server, and what the server makes of a loss."""

    def __init__(self, config: BackboneConfig, settings: EngineSettings) -> None:
        """Connect, and measure the server's conventions, which takes minutes where it compiles first.

        Raises:
            UserError: the server cannot be reached or used, or it does not have the model.
        """
        self.server = Server(settings)
        self.server.refuse_unknown(config.model)
        super().__init__(config)
        theirs = self.server.models[config.model]
        self.context_length = min(filter(None, (theirs, self.context_length)), default=None)
        self.conventions: Conventions = drive(measure(self.server, config.model, config.lora.r))

    def info(self) -> EngineInfo:
        """See `Engine.info`. The API does not say the dtype; taken for bfloat16, old log-probs are recomputed."""
        return EngineInfo(
            model=self.config.model,
            dtype="bfloat16",
            device=self.device,
            context_length=self.context_length,
            vocab_size=self.vocab_size,
            pad_id=self.pad_id,
            end_ids=tuple(self.end_ids),
            adapter_parameters=0,  # of this machine's memory
            shared_noise=False,
            repeats=False,
            gives=frozenset({"logp"}),
            temperature=1.0,
        )

    def describe(self) -> dict[str, Any]:
        """Return what a run folder records about the model."""
        return {
            "model": self.config.model,
            "server": self.server.url,
            "api": f"tinker {SDK}",
            "precision": "the server's",
            "rank": self.config.lora.r,
            "noise": "the server's own",
            "loss": self.conventions.describe(),
            "vocab_size": self.vocab_size,
            "context_length": self.context_length,
            "end_ids": self.end_ids,
        }

    def check(self, max_grad_norms: Iterable[float]) -> None:
        """Raise `UserError` for runs whose gradients are to be clipped, if the server does not clip."""
        lowest = min(max_grad_norms)
        if not self.conventions.clips and lowest < NEVER_CLIPS:
            raise UserError(
                f"the server at {self.server.url} ignores grad_clip_norm, so no gradient would be clipped at "
                f"optimizer.max_grad_norm = {lowest:g}: set it to {NEVER_CLIPS:g} to train without a clip"
            )
