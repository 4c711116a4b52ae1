"""The engine protocol: requests and answers are data only, so an engine may run in this process or on another machine.

    samples = await engine.sample(SampleRequest(policy, prompts, ...))
    scored  = await engine.score(ScoreRequest(policy, tokens, ...))
    learned = await engine.forward_backward(LearnRequest(run, tokens, batch, objective, ...))
    stepped = await engine.optim_step(run, StepSettings(...))

Requests name policies: `PolicyRef(run, version)` is a run's policy after `version` optimizer steps, `BASE` is the model
without an adapter. A fresh adapter leaves the base model unchanged, so version 0 of every run equals `BASE`.
An objective travels as its JSON. This module imports no model and no optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from objectives import PolicyOutput, TokenBatch
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError


class NotFinite(Exception):
    """A loss or gradient is not finite. The step was not taken; parameters and optimizer are unchanged."""


class StalePolicy(Exception):
    """A request names a version of a policy that the engine no longer has, or does not have yet."""


@dataclass(frozen=True)
class PolicyRef:
    """A run's policy after `version` optimizer steps."""

    run: str
    version: int = 0


BASE = PolicyRef("")
"""The model without an adapter: the reference policy."""


@dataclass(frozen=True)
class AdamSettings:
    """Constants of a run's AdamW, as in `rlzoo.config.optimizer.OptimizerSettings`."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class MuonSettings:
    """Constants of a Muon, as in `rlzoo.config.optimizer.OptimizerSettings`; a value head has AdamW's defaults."""

    momentum: float = 0.95
    weight_decay: float = 0.0


@dataclass(frozen=True)
class RunSpec:
    """What an engine needs to know to hold a run.

    Attributes:
        run: the name that requests use.
        seed: the first adapters are a pure function of it. Runs with one seed start from the same adapter.
        critic: source of the values: a head on the policy, or a separate adapter with a head.
        optimizer: None: a fixed policy, which is only sampled and scored.
        adapter: folder of an adapter in PEFT's format to begin with; None: a fresh adapter.
        steady: the run sends its next request soon after each answer, until it is released. An engine may hold a batch
            for it.
    """

    run: str
    seed: int = 0
    critic: Literal["head", "adapter"] = "head"
    optimizer: AdamSettings | MuonSettings | None = AdamSettings()
    adapter: str | None = None
    steady: bool = False


@dataclass(frozen=True)
class SampleRequest:
    """A run's request for `group_size` responses to each of its prompts.

    Attributes:
        policy: the policy to sample.
        prompts: P lists of tokens.
        seed, step, prompt_keys: name the noise; one key per prompt. Equal names give equal noise.
        temperature: the log-probs are those of softmax(logits / temperature).
        greedy: take the likeliest token instead of sampling.
        run: the run that is charged.
        samples, positions: for trajectories that continue: the index of each prompt's first response, and the number
            of prompt tokens after the initial prompt. They name the noise and count towards `max_new_tokens`.
    """

    policy: PolicyRef
    prompts: Sequence[Sequence[int]]
    group_size: int
    max_new_tokens: int
    seed: int
    step: int
    prompt_keys: Sequence[int]
    temperature: float = 1.0
    greedy: bool = False
    run: str = ""
    samples: Sequence[int] | None = None
    positions: Sequence[int] | None = None

    @property
    def limits(self) -> list[int]:
        """Maximum number of new tokens for each prompt."""
        return [self.max_new_tokens - position for position in self.positions or [0] * len(self.prompts)]


@dataclass(frozen=True)
class Samples:
    """The responses to one request: N = P * G rows, row i answers prompt i // G; T is the longest response's length.

    Attributes:
        response_NT: int64, 0 outside the mask. The end token, when there is one, is inside the mask.
        mask_NT: bool.
        logp_NT: float32 log-prob of each token at the sampling temperature; 0 outside the mask.
        finished_N: bool, true if the row ended with an end token, false if it was cut at `max_new_tokens`.
        seconds: engine time of the request: its share, by tokens, of the batch's time.
    """

    response_NT: Tensor
    mask_NT: Tensor
    logp_NT: Tensor
    finished_N: Tensor
    seconds: float = 0.0


Wanted = Literal["logp", "value", "entropy", "collision"]


@dataclass(frozen=True)
class ScoreRequest:
    """A request for what is in `want` of the learned tokens, without gradient: log-probs, values, entropy, collision
    (the sum of the squared probabilities).

    Values are those of the run's critic, so `BASE` has none. `run` is the run that is charged.
    """

    policy: PolicyRef
    tokens: Tokens
    temperature: float
    want: frozenset[Wanted] = frozenset({"logp"})
    run: str = ""


@dataclass(frozen=True)
class Scored:
    """Answer to a `ScoreRequest`: [N, T], 0 where `learn` is false; None if not in `want`."""

    logp_NT: Tensor | None = None
    value_NT: Tensor | None = None
    entropy_NT: Tensor | None = None
    collision_NT: Tensor | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class LearnRequest:
    """Rows of one optimizer step of one run. Their weights are those of the whole step, so the parts of a step add up.

    Attributes:
        objective: `Objective.model_dump(mode="json")`.
        starts_here: the policy is still the old policy of the ratios. The log-probs of this pass then replace the
            batch's old ones, and every ratio is exactly 1.
    """

    run: str
    tokens: Tokens
    batch: TokenBatch
    objective: dict[str, Any]
    temperature: float
    starts_here: bool = False


@dataclass(frozen=True)
class Learned:
    """Answer to a `LearnRequest`.

    Attributes:
        rows: int64, the rows that the objective learns from; see `Objective.learns_from`. The other rows have no
            gradient and are not computed.
        policy: the policy's output for these rows, detached.
        loss: the sum over these rows.
    """

    rows: Tensor
    policy: PolicyOutput
    loss: float
    seconds: float = 0.0


@dataclass(frozen=True)
class StepSettings:
    """One optimizer step.

    Attributes:
        lr, critic_lr: rates of the policy and of a critic adapter (None: that of the policy).
        max_grad_norm: clip of the 2-norm over everything that the step trains.
        trains: "all"; or "critic": only the critic is updated, and the policy's optimizer restarts at the first step
            that trains "all"; or "nothing": the step is counted but not taken.
    """

    lr: float
    critic_lr: float | None = None
    max_grad_norm: float = 1.0
    trains: Literal["all", "critic", "nothing"] = "all"


@dataclass(frozen=True)
class Stepped:
    """Answer to an optimizer step: the gradient's norm before clipping, and the new policy."""

    gradient_norm: float
    policy: PolicyRef
    seconds: float = 0.0


@dataclass(frozen=True)
class EngineInfo:
    """Properties and guarantees of an engine.

    Attributes:
        model: name of the base model.
        dtype, device: of the activations that give log-probs, "float32" or "bfloat16"; of the tensors in its answers.
        context_length: maximum number of tokens of prompt and response together; None: no limit.
        vocab_size, pad_id, end_ids: the tokenizer's.
        adapter_parameters: number of trained parameters of a policy (a critic with its own adapter has as many).
        shared_noise: requests with equal seed, step and keys get the same noise under any policy: runs can be paired.
        repeats: equal requests give equal samples, alone or in any batch.
        gives: what it can score, and learn from; it refuses requests for anything else.
        temperature: the only temperature that it knows log-probs at; None: any.
        sampler: "local", or one with arithmetic of its own, after which the trainer recomputes old log-probs.
    """

    model: str
    dtype: str
    device: str
    context_length: int | None
    vocab_size: int
    pad_id: int
    end_ids: tuple[int, ...]
    adapter_parameters: int
    shared_noise: bool
    repeats: bool
    gives: frozenset[Wanted] = frozenset({"logp", "value", "entropy", "collision"})
    temperature: float | None = None
    sampler: str = "local"


class Engine(Protocol):
    """Holds the base model and the runs: adapters, critics, optimizers. Every method may be awaited by many coroutines.

    A request that cannot be answered raises only in the coroutine that sent it: `UserError` for an invalid request,
    `StalePolicy` for a policy version that the engine does not have.
    """

    async def create(self, spec: RunSpec) -> PolicyRef:
        """Create a run and return its first policy: version 0, or 1 if it begins with a given adapter."""
        ...

    async def sample(self, request: SampleRequest) -> Samples:
        """Sample responses."""
        ...

    async def score(self, request: ScoreRequest) -> Scored:
        """Score responses without gradient."""
        ...

    async def forward_backward(self, request: LearnRequest) -> Learned:
        """Add the gradient of the rows' loss to the run's. Nothing is added if it raises."""
        ...

    async def optim_step(self, run: str, settings: StepSettings) -> Stepped:
        """Clip the run's gradient, take one step, increment the version, and clear the gradient.

        Raises:
            NotFinite: loss or gradient is not finite; parameters and optimizer are unchanged, the gradient is cleared.
        """
        ...

    async def save(self, run: str, folder: str, optimizer: bool = True) -> None:
        """Write `adapter/` (and `critic/`, if it has its own) in PEFT's format and, on request, the optimizer's state.

        Returns when the files are on the disk. Raises `OSError` when they cannot be written.
        """
        ...

    async def meet(self, run: str) -> None:
        """Return when every steady run waits here or has been released: the moment that a fleet is saved at.

        After it the runs share batches as they would if all were created and loaded at this moment.
        """
        ...

    async def load(self, run: str, folder: str) -> PolicyRef:
        """Restore what `save` wrote, optimizer included, and return the current policy.

        Raises:
            UserError: the folder holds no saved run, or one that does not fit.
        """
        ...

    async def release(self, run: str) -> None:
        """Release the run; do nothing if there is no such run."""
        ...

    async def info(self) -> EngineInfo:
        """Return the engine's properties and guarantees."""
        ...


class Codec(Protocol):
    """Converts text to tokens and back, with the tokenizer of the engine's model."""

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Tokens of a text, or of chat messages followed by the start of the model's turn."""
        ...

    def encode_continuation(self, text: str) -> list[int]:
        """Tokens of a text that continues earlier tokens; no special tokens are added."""
        ...

    def encode_response(self, text: str) -> list[int]:
        """Tokens of a text as a complete response: the last one is the end token."""
        ...

    def decode(self, ids: list[int] | Tensor) -> str:
        """Text of the tokens, special tokens left out."""
        ...


def check_prompt(prompt: Sequence[int], max_new_tokens: int, context_length: int | None) -> None:
    """Raise `UserError` for an empty prompt, and for one that leaves no room in the context for the response."""
    if not prompt:
        raise UserError("a prompt is empty: it has no token to continue from")
    if context_length is not None and len(prompt) + max_new_tokens > context_length:
        raise UserError(
            f"a prompt of {len(prompt)} tokens with max_new_tokens {max_new_tokens} exceeds the model's "
            f"context of {context_length}: lower max_new_tokens, or drop prompts this long"
        )
