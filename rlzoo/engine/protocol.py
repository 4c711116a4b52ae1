"""What a run may ask an engine for: data only, so that an engine may be in this process or on another machine.

    samples = await engine.sample(SampleRequest(policy, prompts, ...))
    scored  = await engine.score(ScoreRequest(policy, tokens, ...))
    learned = await engine.forward_backward(LearnRequest(run, tokens, batch, objective, ...))
    stepped = await engine.optim_step(run, StepSettings(...))

Policies are named, never passed: `PolicyRef(run, version)` is what a run has trained after `version` optimizer steps,
`BASE` is the model without an adapter. A fresh adapter is the base model, so version 0 of every run equals `BASE`.
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
    """A loss or gradient is not finite. The step was not made; parameters and optimizer are those before it."""


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
    """Constants of a run's AdamW, as in `rlzoo.config.run.OptimizerSettings`."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0


@dataclass(frozen=True)
class RunSpec:
    """What an engine needs to know to hold a run.

    Attributes:
        run: its name, by which requests refer to it.
        seed: the first adapters are a pure function of it. Runs with one seed start from the same adapter.
        critic: where values come from: a head on the policy, or an adapter and head of the critic's own.
        adam: None: a fixed policy, which is sampled and scored only.
        adapter: folder of an adapter in PEFT's format to begin with; None: a fresh adapter.
        steady: the run asks again soon after each answer, until it is released. An engine may hold a batch for it.
    """

    run: str
    seed: int = 0
    critic: Literal["head", "adapter"] = "head"
    adam: AdamSettings | None = AdamSettings()
    adapter: str | None = None
    steady: bool = False


@dataclass(frozen=True)
class SampleRequest:
    """What one run wants sampled: `group_size` responses to each of its prompts.

    Attributes:
        policy: who answers.
        prompts: P lists of tokens.
        seed, step, prompt_keys: name the noise; one key per prompt. Equal names give equal noise.
        temperature: the log-probs are those of softmax(logits / temperature).
        greedy: take the likeliest token instead of sampling.
        run: who asks.
        samples, positions: of trajectories that go on: the number of each prompt's first response, and the tokens of
            the prompt that came after the first one. They name the noise, and count for `max_new_tokens`.
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
        """Most new tokens of each prompt."""
        return [self.max_new_tokens - position for position in self.positions or [0] * len(self.prompts)]


@dataclass(frozen=True)
class Samples:
    """The responses to one request: N = P * G rows, row i answers prompt i // G; T is the longest response's length.

    Attributes:
        response_NT: int64, 0 outside the mask. The end token, when there is one, is inside the mask.
        mask_NT: bool.
        logp_NT: float32 log-prob of each token at the sampling temperature; 0 outside the mask.
        finished_N: bool: ended with an end token, rather than cut at `max_new_tokens`.
        seconds: engine time of the request: its share, by tokens, of the batch that it was in.
    """

    response_NT: Tensor
    mask_NT: Tensor
    logp_NT: Tensor
    finished_N: Tensor
    seconds: float = 0.0


Wanted = Literal["logp", "value", "entropy"]


@dataclass(frozen=True)
class ScoreRequest:
    """What a policy says of the learned tokens, without gradient: log-probs, values and entropy, those in `want`.

    Values are those of the run's critic, so `BASE` has none. `run` is who asks.
    """

    policy: PolicyRef
    tokens: Tokens
    temperature: float
    want: frozenset[Wanted] = frozenset({"logp"})
    run: str = ""


@dataclass(frozen=True)
class Scored:
    """Answer to a `ScoreRequest`: [N, T], 0 where `learn` is false; None where not wanted."""

    logp_NT: Tensor | None = None
    value_NT: Tensor | None = None
    entropy_NT: Tensor | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class LearnRequest:
    """Rows of one optimizer step of one run. Their weights are those of the whole step, so the parts of a step add up.

    Attributes:
        objective: `Objective.model_dump(mode="json")`.
        starts_here: the policy is still the one whose log-probs the ratios start from: those of this very pass are the
            old ones, whatever stands in the batch, and every ratio is exactly 1.
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
        rows: int64: the rows that the objective learns from; see `Objective.learns_from`. The others have no gradient
            and are not computed.
        policy: what the policy said of these rows, detached.
        loss: the sum over them.
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
        trains: "critic": the policy stays as it is, while its critic learns; its optimizer starts anew with the first
            step that trains "all". "nothing": the step is counted and not made.
    """

    lr: float
    critic_lr: float | None = None
    max_grad_norm: float = 1.0
    trains: Literal["all", "critic", "nothing"] = "all"


@dataclass(frozen=True)
class Stepped:
    """Answer to an optimizer step: the gradient's norm before clipping, and the policy that there is now."""

    gradient_norm: float
    policy: PolicyRef
    seconds: float = 0.0


@dataclass(frozen=True)
class EngineInfo:
    """What an engine computes with, and what it promises.

    Attributes:
        model: name of the base model.
        dtype: of the activations that log-probs come from: "float32" or "bfloat16".
        device: where the tensors of its answers are.
        context_length: most tokens of prompt and response together; None: no limit.
        vocab_size, pad_id, end_ids: of the tokens.
        adapter_parameters: numbers that a run trains, of its policy or of its critic.
        shared_noise: requests with equal seed, step and keys get the same noise under any policy:
            runs can be paired.
        repeats: equal requests get equal samples, alone or in any batch.
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


class Engine(Protocol):
    """Holds the base model and the runs: adapters, critics, optimizers. Every method may be awaited by many coroutines.

    A request that cannot be answered raises in the coroutine that asked, and in no other: `UserError` for a request
    that makes no sense, `StalePolicy` for a policy that is not there.
    """

    async def create(self, spec: RunSpec) -> PolicyRef:
        """Hold a run from now on, and return its first policy: version 0, or 1 if it begins with a given adapter."""
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
        """Clip the run's gradient, make one step, move the version on, and forget the gradient.

        Raises:
            NotFinite: loss or gradient is not finite; parameters and optimizer stay, the gradient is forgotten.
        """
        ...

    async def save(self, run: str, folder: str, optimizer: bool = True) -> None:
        """Write `adapter/` (and `critic/`, if it has its own) in PEFT's format and, on request, the optimizer's state.

        Returns when the files are on the disk. Raises `OSError` when they cannot be written.
        """
        ...

    async def load(self, run: str, folder: str) -> PolicyRef:
        """Take up what `save` wrote, optimizer included, and return the policy that there is now.

        Raises:
            UserError: there is nothing, or it does not fit the run.
        """
        ...

    async def release(self, run: str) -> None:
        """Hold the run no longer; of a run that is not held, nothing."""
        ...

    async def info(self) -> EngineInfo:
        """What the engine computes with, and what it promises."""
        ...


class Codec(Protocol):
    """Text to tokens and back, as the engine's model has it."""

    def encode(self, prompt: str | list[dict[str, Any]]) -> list[int]:
        """Tokens of a text, or of a list of chat messages followed by the opening of the model's turn."""
        ...

    def encode_continuation(self, text: str) -> list[int]:
        """Tokens of a text that continues others, without special tokens of the tokenizer's own."""
        ...

    def encode_response(self, text: str) -> list[int]:
        """Tokens of a text as a response that comes to an end: the end token is the last."""
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
