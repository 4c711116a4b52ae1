"""Responses to problems: sampled over one turn or several turns of an environment, and scored.

    single turn:     sample -> task.score, all responses at once
    several turns:   sample -> environment.step -> its text joins the prompt -> sample -> ...

The noise of a trajectory is a function of (seed, step, prompt key, sample, position after the prompt), so a turn does
not depend on how the earlier tokens came about. A trajectory ends when its environment is done or its token limit is
reached. The two masks record which tokens the policy chose and which the environment added.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from rlzoo.engine.protocol import Codec, SampleRequest, Samples
from rlzoo.engine.tokens import Tokens
from rlzoo.errors import UserError
from rlzoo.tasks import Problem, Task
from rlzoo.tasks.environment import Environment
from rlzoo.training.client import Client
from rlzoo.training.failure import GRADING_TIMEOUT, RunFailed, failing, in_thread
from rlzoo.training.trajectories import Rollout

Result = TypeVar("Result")


async def respond(
    client: Client,
    codec: Codec,
    task: Task,
    problems: Sequence[Problem],
    requests: Sequence[SampleRequest],
    timeout: float = GRADING_TIMEOUT,
) -> list[Rollout]:
    """Answer the problems once for each request, all requests in the same batches. Raises `RunFailed`."""
    if task.several_turns:
        return list(await asyncio.gather(*(converse(client, codec, task, problems, one, timeout) for one in requests)))
    prompts = [list(prompt) for prompt in requests[0].prompts]
    answers = await client.sample(*requests)
    return [await score_samples(codec, task, problems, prompts, samples, timeout) for samples in answers]


@dataclass
class _Trajectory:
    """One trajectory under way."""

    environment: Environment
    place: int
    sample: int
    tokens: list[int] = field(default_factory=list)
    learn: list[bool] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    accuracy: float = 0.0
    going: bool = True
    finished: bool = False

    def add(self, tokens: Sequence[int], logp: Sequence[float] | None = None) -> None:
        """Add tokens: the policy's with their log-probs, or the environment's."""
        self.tokens += tokens
        self.learn += [logp is not None] * len(tokens)
        self.logp += [0.0] * len(tokens) if logp is None else logp
        self.reward += [0.0] * len(tokens)


async def converse(
    client: Client,
    codec: Codec,
    task: Task,
    problems: Sequence[Problem],
    request: SampleRequest,
    timeout: float = GRADING_TIMEOUT,
) -> Rollout:
    """Alternate between the policy and one environment per trajectory until all are done.

    `request.max_new_tokens` limits all tokens after the prompt, including those of the environment.
    """
    group = range(request.group_size)
    going = [_Trajectory(task.environment(p), i, g) for i, p in enumerate(problems) for g in group]
    every = list(going)
    openings = await _all([one.environment.reset() for one in every], timeout)
    prompts = [codec.encode(opening) for opening in openings[:: request.group_size]]
    if any(opening != openings[one.place * request.group_size] for one, opening in zip(every, openings, strict=True)):
        raise UserError(f"task {task.name!r}: an environment opened one problem in two ways")
    first = True
    while going:
        # In the first turn a group shares its prompt; later every trajectory has a prompt of its own.
        asked = replace(request, prompts=prompts) if first else _continued(request, prompts, going)
        (samples,) = await client.sample(asked)
        await _take_turn(codec, going, samples, timeout, request.max_new_tokens)
        going, first = [one for one in going if one.going], False
    return _rollout(codec, problems, request.group_size, prompts, every, client.info.device)


def _continued(request: SampleRequest, prompts: list[list[int]], going: list[_Trajectory]) -> SampleRequest:
    return replace(
        request,
        prompts=[[*prompts[one.place], *one.tokens] for one in going],
        group_size=1,
        prompt_keys=[request.prompt_keys[one.place] for one in going],
        samples=[one.sample for one in going],
        positions=[len(one.tokens) for one in going],
    )


async def _take_turn(codec: Codec, going: list[_Trajectory], samples: Samples, timeout: float, limit: int) -> None:
    """Add a response to each trajectory, and then its environment's answer."""
    lengths, texts = samples.mask_NT.sum(dim=1).tolist(), []
    rows = zip(going, samples.response_NT.tolist(), samples.logp_NT.tolist(), lengths, strict=True)
    for one, ids, logp, length in rows:
        one.add(ids[:length], logp[:length])
        texts.append(codec.decode(ids[:length]))
    turns = zip(going, texts, strict=True)
    answers = await _all([one.environment.step(text) for one, text in turns], timeout)
    for one, answer, ended in zip(going, answers, samples.finished_N.tolist(), strict=True):
        one.reward[-1] = math.nan if answer.reward is None else answer.reward
        one.accuracy = answer.accuracy
        said = [] if answer.done else codec.encode_continuation(answer.text)
        one.finished = ended and answer.done
        one.going = not answer.done and ended and len(one.tokens) + len(said) < limit
        if one.going:
            one.add(said)


async def _all(steps: Sequence[Coroutine[Any, Any, Result]], timeout: float) -> list[Result]:
    """Wait for the answers of all environments."""
    with failing("the environment"):
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.gather(*steps)
        except TimeoutError:
            raise RunFailed(f"the environment took longer than {timeout:g} s (train.grading_timeout)") from None


def _rollout(
    codec: Codec,
    problems: Sequence[Problem],
    group_size: int,
    prompts: list[list[int]],
    every: list[_Trajectory],
    device: str,
) -> Rollout:
    width = max(len(one.tokens) for one in every)

    def padded(name: str, dtype: torch.dtype) -> Tensor:
        rows = [getattr(one, name) + [0] * (width - len(one.tokens)) for one in every]
        return torch.tensor(rows, dtype=dtype, device=device)

    length_N = torch.tensor([len(one.tokens) for one in every], device=device)
    exists_NT = torch.arange(width, device=device) < length_N[:, None]
    group_N = torch.tensor([one.place for one in every], device=device)
    reward_NT = padded("reward", torch.float32)
    return Rollout(
        list(problems),
        group_size,
        Tokens(prompts, group_N, padded("tokens", torch.int64), exists_NT, padded("learn", torch.bool)),
        padded("logp", torch.float32),
        torch.tensor([one.finished for one in every], device=device),
        reward_NT.sum(dim=1),
        torch.tensor([one.accuracy for one in every], device=device, dtype=torch.float32),
        [codec.decode(one.tokens) for one in every],
        turn_reward_NT=reward_NT,
    )


async def score_samples(
    codec: Codec,
    task: Task,
    problems: Sequence[Problem],
    prompts: list[list[int]],
    samples: Samples,
    timeout: float = GRADING_TIMEOUT,
) -> Rollout:
    """Decode and score sampled responses. Raises `RunFailed` when the task raises or takes longer than `timeout`."""
    group_size = samples.response_NT.shape[0] // len(problems)
    lengths = samples.mask_NT.sum(dim=1).tolist()
    completions = [codec.decode(ids[:n]) for ids, n in zip(samples.response_NT.tolist(), lengths, strict=True)]
    asked = [problem for problem in problems for _ in range(group_size)]
    with failing("grading"):
        scores = await in_thread(task.score, asked, completions, seconds=timeout)
    device, named = samples.logp_NT.device, scores.named
    group_N = torch.arange(len(problems)).repeat_interleave(group_size)

    def numbers(values: Sequence[float | None]) -> Tensor:
        return torch.tensor([math.nan if x is None else x for x in values], device=device, dtype=torch.float32)

    return Rollout(
        list(problems),
        group_size,
        Tokens(prompts, group_N, samples.response_NT, samples.mask_NT, samples.mask_NT),
        samples.logp_NT,
        samples.finished_N,
        numbers(scores.reward),
        numbers(scores.accuracy),
        completions,
        named_NK=None if named is None else torch.stack([numbers(column) for column in named.values()], dim=1),
        names=("reward",) if named is None else tuple(named),
    )
