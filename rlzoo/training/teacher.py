"""Teachers: whose log-probs of a run's own tokens an objective may ask for (need "teacher_logp").

A teacher is another adapter on the run's own base, or another model that reads the same tokens. An adapter is scored in
the fleet's batches; another model is held as a second frozen backbone and scores each run's rollout by itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import TeacherConfig
from rlzoo.engine.local import Fleet
from rlzoo.engine.protocol import Engine, Scored, ScoreRequest
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone


@dataclass(frozen=True)
class Teacher:
    """Who a run learns from.

    Attributes:
        theta: its adapter [n]; None is the base model.
        model: its own model and how to batch work on it; None if it is an adapter on the run's base.
    """

    theta: Tensor | None = None
    model: Fleet | None = None

    @classmethod
    def load(cls, config: TeacherConfig, backbone: Backbone, batching: EngineSettings) -> Teacher:
        """Read an adapter's folder, or load another model onto the same device.

        Raises:
            UserError: there is no such adapter or model, it does not fit the base, or it reads other tokens.
        """
        if config.adapter is not None:
            return cls(theta=backbone.load_adapter(config.adapter))
        model = Backbone.load(config.backbone(str(backbone.device)))
        refuse_other_tokens(model, backbone)
        return cls(model=Fleet(model, batching))

    async def logp(self, engine: Engine, tokens: Tokens, temperature: float) -> Tensor:
        """Log-probs [N, T] of given responses at the run's temperature; the time is charged to the run."""
        request = ScoreRequest(self.theta, tokens, temperature)
        if self.model is None:
            return (await engine.score(request)).logp_NT
        start = time.perf_counter()

        async def score(own: Engine) -> Scored:
            return await own.score(request)

        scored: Scored = self.model.run({"": score})[""]
        engine.seconds += time.perf_counter() - start
        return scored.logp_NT.to(tokens.token_NT.device)


def refuse_other_tokens(teacher: Backbone, backbone: Backbone) -> None:
    """Raise `UserError` unless two models mean the same text by the same tokens, end token included."""
    theirs, ours = teacher.tokenizer.get_vocab(), backbone.tokenizer.get_vocab()
    differing = sorted(token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token))
    if differing:
        raise UserError(
            f"the teacher {teacher.config.model!r} reads other tokens than {backbone.config.model!r} ({len(differing)} "
            f"differ, {differing[0]!r} for one), so it cannot judge them: take one of the same model family"
        )
