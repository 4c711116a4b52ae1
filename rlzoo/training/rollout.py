"""Rollouts: prompts drawn, responses sampled and scored, prompts selected.

    prompts --G samples each--> Rollout --task.score--> reward, accuracy --select--> keep, and refill what is missing

Prompts and noise are pure functions of (seed, step, round, place), so algorithms with equal seeds start from the same
prompts and the same noise.
"""

from __future__ import annotations

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
from rlzoo.errors import UserError
from rlzoo.tasks import Problem, Task
from rlzoo.training.client import Client
from rlzoo.training.failure import GRADING_TIMEOUT
from rlzoo.training.responses import respond, score_samples
from rlzoo.training.signal import refuse_broken
from rlzoo.training.trajectories import Rollout


@dataclass(frozen=True)
class Account:
    """The cost of a rollout. Discarded prompts count as sampled: dynamic sampling pays for them."""

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
    """Sample until `len(request.prompt_keys)` prompts are kept, or the maximum number of rounds is reached.

    Args:
        request: the first round's request with its prompts still empty; prompt_keys are the places of the step.
        needs: the objective's. "greedy": sample the greedy response to each prompt as well, in the same batch, for its
            reward. "demonstration": take the responses from the task instead; nothing is sampled, and the cost is 0.
        shuffle: true draws rows of data from shuffled epochs, false in their stored order.
        random_reward: replace rewards by coin flips; selection still uses the accuracy.

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
            samples = demonstrated(codec, task, problems, asked, client.info.device)
            sampled, *rest = [await score_samples(codec, task, problems, prompts, samples, grading_timeout)]
        else:
            greedy = [replace(asked, group_size=1, greedy=True)] if "greedy" in needs else []
            sampled, *rest = await respond(client, codec, task, problems, [asked, *greedy], grading_timeout)
        refuse_broken(sampled)
        sampled = flip_coins(sampled, asked) if random_reward else sampled
        beside = 0
        for likeliest in rest:
            likeliest = flip_coins(likeliest, replace(asked, greedy=True)) if random_reward else likeliest
            sampled = replace(sampled, greedy_N=likeliest.reward_N.repeat_interleave(request.group_size))
            beside = int(likeliest.tokens.learn_NT.sum())
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
    """Return the task's demonstrations instead of samples: `group_size` per problem, drawn by the request's counters.

    Their log-probs are 0: the author of a demonstration counts as a policy that gives it probability 1. A demonstration
    that is too long is cut.
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
    """Replace the rewards by 0 or 1, independent of the responses; a missing reward stays missing."""
    keys_P, samples_G = torch.tensor(list(request.prompt_keys)), torch.arange(rollout.group_size)
    words = (request.seed, "coin", "greedy" if request.greedy else "sample", request.step)
    heads_N = (noise.uniform(*words, keys_P[:, None], samples_G) < 0.5).flatten().to(rollout.reward_N)
    coins_N = heads_N.where(rollout.reward_N.isfinite(), math.nan)
    return replace(rollout, reward_N=coins_N, named_NK=None, names=("reward",), turn_reward_NT=None)


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
    """Check the training prompts of a finite task before training, so that a bad one fails now and not at step 900.

    Raises:
        UserError: a prompt is empty, or does not fit the model's context with `max_new_tokens`; names its row.
    """
    for index in task.doubtful("train", most_bytes(codec, task, max_new_tokens, context_length)):
        try:
            check_prompt(codec.encode(task.problem("train", index).prompt), max_new_tokens, context_length)
        except UserError as error:
            raise UserError(f"task {task.name!r}, train row {index}: {error}") from error


def most_bytes(codec: Codec, task: Task, max_new_tokens: int, context_length: int | None) -> int:
    """Return a length in bytes below which a prompt surely fits: no tokenizer makes more tokens than bytes.

    Such prompts need not be tokenized, so a million rows are checked in seconds. The chat template's own length is
    measured on the first row with its content emptied.
    """
    if context_length is None:
        return sys.maxsize
    if task.size("train") is None:
        return 0
    prompt = task.problem("train", 0).prompt
    frame = "" if isinstance(prompt, str) else [{**message, "content": ""} for message in prompt]
    return context_length - max_new_tokens - len(codec.encode(frame)) - 1
