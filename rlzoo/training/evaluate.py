"""Held-out evaluation: the same prompts and the same noise at every step, for every run, so curves are comparable.

Held-out problems are split in two (`rlzoo.training.held_out`): learning curves and tuning use the validation split; the
first and the last evaluation of a run use the test split.

    accuracy = pass@1 = mean over prompts and samples;    pass@k = mean over prompts of 1 - C(n-c, k) / C(n, k)

with n samples of which c are right (Chen et al. 2107.03374, section 2.1): the unbiased chance that one of k is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rlzoo import noise
from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import EvaluationSettings
from rlzoo.engine import open_engine
from rlzoo.engine.driver import drive
from rlzoo.engine.protocol import BASE, Codec, RunSpec, SampleRequest, check_prompt
from rlzoo.errors import UserError
from rlzoo.tasks import Problem, Task
from rlzoo.training.client import Client
from rlzoo.training.failure import GRADING_TIMEOUT, RunFailed, failing, in_thread
from rlzoo.training.held_out import HeldOut, held_out
from rlzoo.training.responses import respond
from rlzoo.training.signal import refuse_broken
from rlzoo.training.trajectories import Rollout

NOISE_SEED = noise.derive("evaluation")


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one evaluation (plain numbers) and the responses they were computed from."""

    metrics: dict[str, float]
    rollout: Rollout

    @property
    def outcomes(self) -> list[float]:
        """Return the accuracy on each problem, the mean of its samples."""
        return self.rollout.accuracy_N.view(len(self.rollout.problems), -1).double().mean(dim=1).tolist()


async def evaluate(
    client: Client,
    codec: Codec,
    task: Task,
    settings: EvaluationSettings,
    *,
    split: HeldOut = "test",
    max_new_tokens: int,
    temperature: float,
    grading_timeout: float = GRADING_TIMEOUT,
) -> Evaluation:
    """Sample responses of the client's policy to distinct held-out problems, and score them.

    Raises:
        UserError: the split is empty.
    """
    problems = held_out(task, split, settings.prompts)
    if not problems:
        raise UserError(
            f"task {task.name!r}: too few different problems are held out for a test split; hold out more "
            "(task.test_fraction), or give a larger test split"
        )
    count = len(problems)
    prompts = [codec.encode(problem.prompt) for problem in problems]
    check_rows(task, problems, prompts, max_new_tokens, client.info.context_length)
    request = SampleRequest(
        policy=client.policy,
        prompts=prompts,
        group_size=settings.samples,
        max_new_tokens=max_new_tokens,
        seed=NOISE_SEED,
        step=0,
        prompt_keys=list(range(count)),
        temperature=temperature,
        greedy=settings.greedy,
    )
    (rollout,) = await respond(client, codec, task, problems, [request], grading_timeout)
    with failing("grading"):
        grades = await in_thread(graded, task, rollout, seconds=grading_timeout)
    metrics = response_metrics(rollout) | grades | pass_at_k(rollout.accuracy_N.view(count, -1))
    if settings.greedy:
        metrics["entropy"] = math.nan  # its estimate is of sampled tokens
    if settings.with_greedy:
        likeliest = replace(request, group_size=1, greedy=True)
        (greedy,) = await respond(client, codec, task, problems, [likeliest], grading_timeout)
        metrics["accuracy_greedy"] = _mean(greedy.accuracy_N)
    return Evaluation(metrics, rollout)


def check_rows(
    task: Task, problems: list[Problem], prompts: list[list[int]], max_new_tokens: int, context_length: int | None
) -> None:
    """Raise `UserError` for a held-out prompt that is empty or does not fit the context, with its row in the data."""
    for count, (problem, prompt) in enumerate(zip(problems, prompts, strict=True), start=1):
        try:
            check_prompt(prompt, max_new_tokens, context_length)
        except UserError as error:
            place = problem.place or f"held-out problem {count}, {str(problem.prompt)[:60]!r}"
            raise UserError(f"task {task.name!r}, {place}: {error}") from error


def evaluate_policy(
    model: Any,
    task: Task,
    adapter: str | Path | None,
    settings: EvaluationSettings,
    *,
    batching: EngineSettings | None = None,
    **kwargs: Any,
) -> Evaluation:
    """`evaluate` outside a run: an adapter's folder, or the base model (None), now.

    Args:
        model: a model that was loaded; see `rlzoo.engine.load_model`.
        batching: how to batch the work.
        kwargs: the keyword arguments of `evaluate`.

    Raises:
        UserError: there is no such adapter, it does not fit the model, its log-probs are not finite, or grading failed.
    """

    async def run() -> Evaluation:
        async with open_engine(model, batching or EngineSettings()) as engine:
            client = Client(engine, "", BASE, await engine.info())
            if adapter is not None:
                client.policy = await engine.create(RunSpec("evaluated", optimizer=None, adapter=str(adapter)))
            found = await evaluate(client, model, task, settings, **kwargs)
            refuse_broken(found.rollout)
            return found

    try:
        return drive(run())
    except RunFailed as error:
        raise UserError(str(error)) from error


def response_metrics(rollout: Rollout) -> dict[str, float]:
    """Return metrics of sampled responses. Responses without a reward count in everything but `reward`.

    The metrics: reward (if it is a sum of several, also `reward_NAME` for each), accuracy, length in tokens (all,
    right, wrong), the share that finished, the share of silent groups, the number of different responses per prompt,
    and the entropy as the mean of -log p at the sampled tokens. A mean over nothing is nan.
    """
    length_N = rollout.tokens.learn_NT.sum(dim=1).float()
    right = rollout.accuracy_N > 0.5
    return {
        "reward": _mean(rollout.reward_N[rollout.reward_N.isfinite()]),
        **{f"reward_{name}": _mean(column[column.isfinite()]) for name, column in named_rewards(rollout).items()},
        "accuracy": _mean(rollout.accuracy_N),
        "length": _mean(length_N),
        "length_right": _mean(length_N[right]),
        "length_wrong": _mean(length_N[~right]),
        "finished": _mean(rollout.finished_N.float()),
        "silent_groups": silent_groups(rollout),
        "distinct": distinct(rollout),
        "entropy": _mean(-rollout.logp_NT[rollout.tokens.learn_NT]),
    }


def graded(task: Task, rollout: Rollout) -> dict[str, float]:
    """Return the accuracy of the same responses under every grader of the task: `accuracy_strict`, ...

    Early gains of training are often gains in format, which a lenient grader does not count. Empty for tasks that grade
    responses themselves.
    """
    problems = [problem for problem in rollout.problems for _ in range(rollout.group_size)]
    grades = task.grades(problems, rollout.completions)
    return {f"accuracy_{name.replace('-', '_')}": sum(found) / len(found) for name, found in grades.items()}


def named_rewards(rollout: Rollout) -> dict[str, Tensor]:
    """The rewards [N] whose sum is the reward, by name; empty if there is only one."""
    if rollout.named_NK is None:
        return {}
    return dict(zip(rollout.names, rollout.named_NK.unbind(dim=1), strict=True))


def silent_groups(rollout: Rollout) -> float:
    """Share of prompts whose responses all got the same reward; nan with one response per prompt.

    Responses without a reward are left out, and so is a prompt that has no others.
    """
    if rollout.group_size == 1:
        return math.nan
    reward_PG = rollout.reward_N.view(-1, rollout.group_size)
    known_PG = reward_PG.isfinite()
    low_P = reward_PG.where(known_PG, math.inf).amin(dim=1)
    high_P = reward_PG.where(known_PG, -math.inf).amax(dim=1)
    return _mean((low_P == high_P)[known_PG.any(dim=1)].float())


def distinct(rollout: Rollout) -> float:
    """Mean number of different responses per prompt, from 1 to the group's size; nan with one response per prompt."""
    size = rollout.group_size
    groups = [rollout.completions[i : i + size] for i in range(0, len(rollout.completions), size)]
    return sum(len(set(group)) for group in groups) / len(groups) if groups and size > 1 else math.nan


def pass_at_k(accuracy_PG: Tensor) -> dict[str, float]:
    """pass@k for k = 2, 4, 8, ... up to the number of samples; empty with one sample per prompt."""
    right_PG = accuracy_PG > 0.5
    n = right_PG.shape[1]
    counts = right_PG.sum(dim=1).tolist()
    ks = [2**i for i in range(1, n.bit_length()) if 2**i <= n]
    return {f"pass@{k}": sum(1 - math.comb(n - c, k) / math.comb(n, k) for c in counts) / len(counts) for k in ks}


def _mean(x: Tensor) -> float:
    return float(x.mean()) if x.numel() else math.nan
