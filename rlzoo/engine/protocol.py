"""What a run may ask for: samples, scores, updates. It awaits its engine; who answers, and with whom, it never knows.

    samples = await engine.sample(SampleRequest(...))
    scores  = await engine.score(ScoreRequest(...))
    updated = await engine.update(UpdateRequest(...))

Any engine with these three coroutines will do. The one of this project is `rlzoo.engine.local`: it batches whatever
its runs are waiting for.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from objectives import Objective, PolicyOutput, TokenBatch
from rlzoo.engine.optimizer import Learner
from rlzoo.engine.sampler import SampleRequest, Samples
from rlzoo.engine.tokens import Tokens

Kind = Literal["score", "update", "sample"]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ScoreRequest:
    """Log-probs (values, entropies) of the learned tokens, without gradient. `theta` None is the reference policy."""

    theta: Tensor | None
    tokens: Tokens
    temperature: float
    value: bool = False
    entropy: bool = False


@dataclass(frozen=True)
class Scored:
    """Answer to a `ScoreRequest`: [N, T], 0 where `learn` is false."""

    logp_NT: Tensor
    value_NT: Tensor | None
    entropy_NT: Tensor | None = None


@dataclass(frozen=True)
class UpdateRequest:
    """One optimizer step of one run over all rows of `tokens`, whose weights are those of the whole step.

    With `starts_here` the policy is still the one whose log-probs the ratios start from: those of this very step are
    the old ones, whatever stands in the batch, and every ratio is exactly 1.
    """

    learner: Learner
    objective: Objective
    tokens: Tokens
    batch: TokenBatch
    temperature: float
    starts_here: bool = False


@dataclass(frozen=True)
class Updated:
    """Answer to an `UpdateRequest`.

    Attributes:
        policy: the policy's output before the step, detached, at the rows that the objective learns from.
        batch: those rows of the request's batch; see `Objective.learns_from`.
        gradient_norm: before clipping.
    """

    policy: PolicyOutput
    batch: TokenBatch
    gradient_norm: float


class Call(Generic[Answer]):
    """A request on its way; awaiting it hands it to whoever drives the run, who sends the answer back."""

    def __init__(self, kind: Kind, request: Any, engine: Engine) -> None:
        self.kind: Kind = kind
        self.request = request
        self.engine = engine

    def __await__(self) -> Generator[Call[Answer], Answer, Answer]:
        return (yield self)


class Engine:
    """One run's line to the engine.

    Attributes:
        seconds: engine time charged to this run so far: its share, by tokens, of the batches it was in, by the clock of
            the process that computed them.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def sample(self, request: SampleRequest) -> Call[Samples]:
        """Sample responses: groups per prompt, through the request's adapter."""
        return Call("sample", request, self)

    def sample_all(self, requests: Sequence[SampleRequest]) -> Call[list[Samples]]:
        """Sample for several requests in one batch."""
        return Call("sample", list(requests), self)

    def score(self, request: ScoreRequest) -> Call[Scored]:
        """Score responses without gradient."""
        return Call("score", request, self)

    def update(self, request: UpdateRequest) -> Call[Updated]:
        """Make one optimizer step. Raises `NotFinite`, the state unchanged, when loss or gradient is not finite."""
        return Call("update", request, self)
