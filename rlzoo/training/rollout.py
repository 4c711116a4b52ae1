"""Rollouts: prompts drawn, responses sampled and scored, prompts selected.

    prompts --G samples each--> Rollout --task.score--> reward, accuracy --select--> keep, and refill what is missing

Prompts and noise are pure functions of (seed, step, round, place), so two algorithms with one seed start from the same
prompts and the same noise, whatever else they do.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import torch
from torch import Tensor

from advantages import Select
from rlzoo import noise
from rlzoo.engine.protocol import Codec, SampleRequest, Samples, check_prompt
from rlzoo.engine.tokens import Tokens, cat_padded
from rlzoo.errors import UserError
from rlzoo.tasks import Problem, Task
from rlzoo.training.client import Client
from rlzoo.training.failure import GRADING_TIMEOUT, failing, in_thread


@dataclass(frozen=True)
class Rollout:
    """Responses to P prompts, G each; row i answers prompt i // G.

    Attributes:
        problems: the P problems.
        tokens: the N = P * G rows; each continues the prompt of its problem.
        logp_NT: log-probs under the sampling policy.
        finished_N: bool, true where the response ended with an end token.
        reward_N: the task's reward, nan where it could not be scored.
        accuracy_N: the task's verdict, 0 or 1, before any shaping; known for every response.
        completions: the N responses as text.
        greedy_N: reward of the greedy response to each row's prompt, nan where it has none; None unless asked for.
        named_NK: the rewards whose sum is reward_N, where there are several; None for one.
        names: their names.
    """

    problems: list[Problem]
    group_size: int
    tokens: Tokens
    logp_NT: Tensor
    finished_N: Tensor
    reward_N: Tensor
    accuracy_N: Tensor
    completions: list[str]
    greedy_N: Tensor | None = None
    named_NK: Tensor | None = None
    names: tuple[str, ...] = ("reward",)

    @property
    def reward_NK(self) -> Tensor:
        """The rewards by name, one column each; nan where one could not be scored."""
        return self.reward_N[:, None] if self.named_NK is None else self.named_NK

    @property
    def prompt_N(self) -> tuple[str, ...]:
        """A name of each row's prompt: the beginning of its text's SHA-256, the same in every step."""
        texts = (json.dumps(problem.prompt, sort_keys=True) for problem in self.problems)
        keys = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
        return tuple(key for key in keys for _ in range(self.group_size))

    @property
    def turn_NT(self) -> Tensor:
        """Turn in which each token was written, from 0: a turn begins where the policy takes over."""
        learn_NT = self.tokens.learn_NT
        begins_NT = learn_NT & ~torch.nn.functional.pad(learn_NT, (1, 0))[:, :-1]
        return (begins_NT.cumsum(dim=1) - 1).clamp(min=0)

    @property
    def group_N(self) -> Tensor:
        """Id of each row's prompt: 0 .. P-1, G times each."""
        return torch.arange(len(self.problems), device=self.reward_N.device).repeat_interleave(self.group_size)

    @property
    def mask_NT(self) -> Tensor:
        """Tokens that may be learned from: a response without a reward is no response."""
        return self.tokens.learn_NT & self.reward_N.isfinite()[:, None]

    @property
    def usable_accuracy_PG(self) -> Tensor:
        """What selection decides on: the accuracy of the responses that may be learned from, nan for the others."""
        return self.accuracy_N.where(self.reward_N.isfinite(), torch.nan).view(-1, self.group_size)

    def keep(self, keep_P: Tensor) -> Rollout:
        """The rollout of the prompts that are true in keep_P."""
        prompts = keep_P.nonzero().flatten().tolist()
        rows = keep_P.repeat_interleave(self.group_size).nonzero().flatten()
        return Rollout(
            [self.problems[p] for p in prompts],
            self.group_size,
            self.tokens.rows(rows, trim=False),
            *(x[rows] for x in (self.logp_NT, self.finished_N, self.reward_N, self.accuracy_N)),
            [self.completions[i] for i in rows.tolist()],
            None if self.greedy_N is None else self.greedy_N[rows],
            None if self.named_NK is None else self.named_NK[rows],
            self.names,
        )

    @classmethod
    def cat(cls, parts: Sequence[Rollout]) -> Rollout:
        """Put rollouts one after the other.

        Raises:
            UserError: the reward function gave other names in one than in another.
        """
        if len({part.names for part in parts}) > 1:
            raise UserError(
                f"the reward function returned {', '.join(parts[0].names)} at first and "
                f"{', '.join(parts[-1].names)} later: it has to return the same names every time"
            )
        return cls(
            [problem for part in parts for problem in part.problems],
            parts[0].group_size,
            Tokens.cat([part.tokens for part in parts]),
            cat_padded([part.logp_NT for part in parts]),
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("finished_N", "reward_N", "accuracy_N")),
            [text for part in parts for text in part.completions],
            None if parts[0].greedy_N is None else torch.cat([part.greedy_N for part in parts]),
            None if parts[0].named_NK is None else torch.cat([part.reward_NK for part in parts]),
            parts[0].names,
        )


@dataclass(frozen=True)
class Account:
    """What a rollout cost. Discarded prompts are part of what was sampled: dynamic sampling pays for them."""

    rounds: int = 0
    prompts_sampled: int = 0
    prompts_discarded: int = 0
    tokens_sampled: int = 0
    tokens_discarded: int = 0

    def add(self, sampled: Rollout, kept: Rollout, beside: int = 0) -> Account:
        """The account with one more round; `beside` are tokens that were sampled beside the rollout's own."""
        prompts = len(sampled.problems), len(sampled.problems) - len(kept.problems)
        total, used = int(sampled.tokens.learn_NT.sum()), int(kept.tokens.learn_NT.sum())
        return Account(
            self.rounds + 1,
            self.prompts_sampled + prompts[0],
            self.prompts_discarded + prompts[1],
            self.tokens_sampled + total + beside,
            self.tokens_discarded + total - used,
        )


async def roll_out(
    client: Client,
    codec: Codec,
    task: Task,
    select: Select,
    request: SampleRequest,
    *,
    needs: frozenset[str] = frozenset(),
    random_reward: bool = False,
    shuffle: bool = True,
    grading_timeout: float = GRADING_TIMEOUT,
) -> tuple[Rollout, Rollout, Account]:
    """Sample until `len(request.prompt_keys)` prompts are kept, or the selection's rounds are used up.

    Args:
        request: the first round's request with its prompts still empty; prompt_keys are the places of the step.
        needs: the objective's. "greedy": sample the greedy response to each prompt as well, in the same batch, for its
            reward. "demonstration": take the responses from the task instead; nothing is sampled, nothing paid for.
        shuffle: whether rows of data are drawn from shuffled epochs, or in their order.
        random_reward: put coin flips in the place of rewards; selection still sees the accuracy, learning does not.

    Returns:
        The rollout to train on, the first round as sampled (the same prompts for every algorithm), and the account.
    """
    wanted = len(request.prompt_keys)
    kept: list[Rollout] = []
    account = Account()
    first: Rollout | None = None
    for round_ in range(select.max_rounds):
        missing = wanted - sum(len(part.problems) for part in kept)
        if missing == 0:
            break
        problems = draw(task, request.seed, request.step, round_, missing, shuffle)
        keys = [round_ * wanted + place for place in range(missing)]
        prompts = [codec.encode(problem.prompt) for problem in problems]
        asked = replace(request, prompts=prompts, prompt_keys=keys)
        if "demonstration" in needs:
            samples, *rest = [demonstrated(codec, task, problems, asked, client.info.device)]
        else:
            greedy = [replace(asked, group_size=1, greedy=True)] if "greedy" in needs else []
            samples, *rest = await client.sample(asked, *greedy)
        sampled = await score_samples(codec, task, problems, prompts, samples, grading_timeout)
        sampled = flip_coins(sampled, asked) if random_reward else sampled
        beside = 0
        for extra in rest:
            likeliest = await score_samples(codec, task, problems, prompts, extra, grading_timeout)
            likeliest = flip_coins(likeliest, replace(asked, greedy=True)) if random_reward else likeliest
            sampled = replace(sampled, greedy_N=likeliest.reward_N.repeat_interleave(request.group_size))
            beside = int(extra.mask_NT.sum())
        first = first or sampled
        kept.append(sampled.keep(select(sampled.usable_accuracy_PG)))
        account = account.add(sampled, kept[-1], beside)
    assert first is not None
    if "demonstration" in needs:
        account = replace(account, tokens_sampled=0, tokens_discarded=0)
    chosen = Rollout.cat(kept)
    if random_reward:
        chosen = replace(chosen, accuracy_N=chosen.reward_N.nan_to_num(0.0))
    return chosen, first, account


def demonstrated(
    codec: Codec, task: Task, problems: Sequence[Problem], request: SampleRequest, device: str = "cpu"
) -> Samples:
    """The task's demonstrations in the place of samples: `group_size` of each problem, drawn by the request's counters.

    Their log-probs are 0, as whoever wrote them gave them probability 1. One that is too long is cut.
    """
    rows: list[list[int]] = []
    for problem, key in zip(problems, request.prompt_keys, strict=True):
        for place in range(request.group_size):
            rng = Random(noise.derive(request.seed, "demonstration", request.step, key, place))
            rows.append(codec.encode_response(task.demonstration(problem, rng, clean=True)))
    finished_N = torch.tensor([len(row) <= request.max_new_tokens for row in rows], device=device)
    response_NT, mask_NT = pad_right([row[: request.max_new_tokens] for row in rows], device)
    return Samples(response_NT, mask_NT, torch.zeros(mask_NT.shape, device=device), finished_N)


def pad_right(rows: Sequence[Sequence[int]], device: str) -> tuple[Tensor, Tensor]:
    """Token lists as one int64 tensor [N, T], 0 on the right, and the bool mask of what is real."""
    length_N = torch.tensor([len(row) for row in rows])
    mask_NT = torch.arange(int(length_N.max())) < length_N[:, None]
    token_NT = torch.zeros(mask_NT.shape, dtype=torch.int64)
    token_NT[mask_NT] = torch.tensor([token for row in rows for token in row])
    return token_NT.to(device), mask_NT.to(device)


def check_demonstrations(task: Task) -> None:
    """Raise `UserError` if a task has no demonstrations to imitate."""
    task.demonstration(task.problem("train", 0), Random(0))


def flip_coins(rollout: Rollout, request: SampleRequest) -> Rollout:
    """The rollout with rewards 0 or 1 that know nothing of the responses; what has no reward still has none."""
    keys_P, samples_G = torch.tensor(list(request.prompt_keys)), torch.arange(rollout.group_size)
    words = (request.seed, "coin", "greedy" if request.greedy else "sample", request.step)
    heads_N = (noise.uniform(*words, keys_P[:, None], samples_G) < 0.5).flatten().to(rollout.reward_N)
    coins_N = heads_N.where(rollout.reward_N.isfinite(), math.nan)
    return replace(rollout, reward_N=coins_N, named_NK=None, names=("reward",))


def draw(task: Task, seed: int, step: int, round_: int, count: int, shuffle: bool = True) -> list[Problem]:
    """Draw training problems: the first round walks through epochs, each shuffled anew, later rounds draw at random."""
    size = task.size("train")
    if size is None:
        indices = [noise.derive(seed, "problem", step, round_, place) for place in range(count)]
    elif round_ == 0:
        places = range(step * count, (step + 1) * count)
        if not shuffle:
            return [task.problem("train", place % size) for place in places]
        indices = [int(_epoch_order(size, seed, place // size)[place % size]) for place in places]
    else:
        indices = noise.integers(size, seed, "refill", step, round_, torch.arange(count)).tolist()
    return [task.problem("train", index) for index in indices]


@lru_cache(maxsize=64)
def _epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    return noise.permutation(size, seed, "epoch", epoch)


def check_prompts(codec: Codec, task: Task, max_new_tokens: int, context_length: int | None) -> None:
    """Look through the training prompts of a task that has them at hand: a misfit is better found now than at step 900.

    Raises:
        UserError: a prompt is empty, or does not fit the model's context with `max_new_tokens`; names its row.
    """
    for index in task.doubtful("train", most_bytes(codec, task, max_new_tokens, context_length)):
        try:
            check_prompt(codec.encode(task.problem("train", index).prompt), max_new_tokens, context_length)
        except UserError as error:
            raise UserError(f"task {task.name!r}, train row {index}: {error}") from error


def most_bytes(codec: Codec, task: Task, max_new_tokens: int, context_length: int | None) -> int:
    """Bytes up to which a prompt fits the context without being tokenized: no tokenizer makes more tokens than bytes.

    A million rows are looked through in seconds this way. What a template adds is taken from the first row's, emptied.
    """
    if context_length is None:
        return sys.maxsize
    if task.size("train") is None:
        return 0
    prompt = task.problem("train", 0).prompt
    frame = "" if isinstance(prompt, str) else [{**message, "content": ""} for message in prompt]
    return context_length - max_new_tokens - len(codec.encode(frame)) - 1


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
