"""Teachers: fixed policies that score a run's own tokens for the need "teacher_logp".

A teacher is another adapter on the run's base model, or another model with the same tokenizer. An adapter is a fixed
policy of the runs' engine and shares its batches; another model gets a second engine.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import TeacherConfig
from rlzoo.engine import load_model, open_engine
from rlzoo.engine.protocol import BASE, Engine, PolicyRef, RunSpec, ScoreRequest
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.training.client import Client


@dataclass(frozen=True)
class Teacher:
    """The policy that a run learns from, and the engine that holds it."""

    engine: Engine
    policy: PolicyRef

    @classmethod
    async def open(
        cls, config: TeacherConfig, model: Any, engine: Engine, settings: EngineSettings, stack: AsyncExitStack
    ) -> Teacher:
        """Have an engine hold the teacher: the runs' own, or one on `model`, which the stack closes in the end.

        Raises:
            UserError: there is no such adapter, or it does not fit the base.
        """
        if config.adapter is not None:
            name = f"teacher {config.adapter}"
            return cls(engine, await engine.create(RunSpec(name, optimizer=None, adapter=config.adapter)))
        only_scores = settings.model_copy(update={"sampler": "local", "vllm": None})
        return cls(await stack.enter_async_context(open_engine(model, only_scores)), BASE)

    async def logp(self, client: Client, tokens: Tokens, temperature: float) -> Tensor:
        """Log-probs [N, T] of given responses at the run's temperature; the time is charged to the run."""
        scored = await client.score(ScoreRequest(self.policy, tokens, temperature), self.engine)
        assert scored.logp_NT is not None
        return scored.logp_NT.to(tokens.token_NT.device)


def load_teacher(config: TeacherConfig, model: Any) -> Any:
    """Load a teacher's own model onto the device of the runs' model; None if the teacher is an adapter.

    Raises:
        UserError: there is no such model, or it reads other tokens.
    """
    if config.adapter is not None:
        return None
    teacher = load_model(config.backbone(str(model.device)))
    refuse_other_tokens(teacher, model)
    return teacher


def refuse_other_tokens(teacher: Any, model: Any) -> None:
    """Raise `UserError` unless both models map the same tokens to the same text, including the end token."""
    theirs, ours = teacher.tokenizer.get_vocab(), model.tokenizer.get_vocab()
    differing = sorted(token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token))
    if differing:
        raise UserError(
            f"the teacher {teacher.config.model!r} reads other tokens than {model.config.model!r} ({len(differing)} "
            f"differ, {differing[0]!r} for one), so it cannot judge them: take one of the same model family"
        )
