"""From a rollout to what an optimizer step needs: shaped rewards, credit, and the minibatches with their weights.

    reward --shape--> reward per token --advantage--> Credit --split by prompts--> (tokens, TokenBatch) per update

The trainer asks the objective what it needs (`objective.needs`) and computes exactly that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advantages import Credit, ShapeContext, at_last_token, shape_reward
from objectives import Objective, TokenBatch, rollout_metrics
from rlzoo import noise
from rlzoo.engine.optimizer import Learner
from rlzoo.engine.protocol import Engine, ScoreRequest
from rlzoo.engine.tokens import Tokens
from rlzoo.training.rollout import Rollout
from rlzoo.training.teacher import Teacher


@dataclass(frozen=True)
class Assigned:
    """A rollout with its credit. No gradient.

    Attributes:
        states: what adaptive shapers carry to the next step.
        metrics: silent groups and advantage statistics of what is trained on, the shapers' states that it was shaped
            with, the mean reward of greedy responses if there are any, `kl_teacher` if there is a teacher (nats per
            token, KL(pi || teacher) at the policy's own tokens), and `sampler_gap` if old log-probs were recomputed.
    """

    rollout: Rollout
    credit: Credit
    old_logp_NT: Tensor
    ref_logp_NT: Tensor | None
    old_value_NT: Tensor | None
    states: tuple[float | None, ...]
    metrics: dict[str, float]


async def assign_credit(
    engine: Engine,
    objective: Objective,
    learner: Learner,
    rollout: Rollout,
    states: Sequence[float | None],
    *,
    max_length: int,
    temperature: float,
    recompute: bool,
    teacher: Teacher | None = None,
) -> Assigned:
    """Compute what the objective needs of the rollout, shape its rewards, and estimate the advantages."""
    needs, mask_NT = objective.needs, rollout.mask_NT
    old_logp_NT, value_NT, ref_logp_NT = rollout.logp_NT, None, None
    if recompute:
        old_logp_NT = (await engine.score(ScoreRequest(learner.theta, rollout.tokens, temperature))).logp_NT
    if "value" in needs:
        value_NT = (await engine.score(ScoreRequest(learner.critic, rollout.tokens, temperature, value=True))).value_NT
    if "ref_logp" in needs:
        ref_logp_NT = (await engine.score(ScoreRequest(None, rollout.tokens, temperature))).logp_NT
    teacher_logp_NT = None
    if "teacher_logp" in needs:
        assert teacher is not None, "the configuration of a run makes sure of it"
        teacher_logp_NT = await teacher.logp(engine, rollout.tokens, temperature)
    reward_N = rollout.reward_N.nan_to_num(0.0)
    reward_NT, following = shape_reward(
        objective.shape,
        at_last_token(reward_N, mask_NT),
        ShapeContext(mask_NT, old_logp_NT, ref_logp_NT, max_length, teacher_logp_NT=teacher_logp_NT),
        states,
    )
    more = {} if rollout.greedy_N is None else {"greedy_N": rollout.greedy_N}
    credit = objective.advantage(reward_NT, mask_NT, rollout.group_N, value_NT, **more)
    metrics = rollout_metrics(reward_N, mask_NT, rollout.group_N, credit)
    if teacher_logp_NT is not None:
        metrics["kl_teacher"] = mean_of_known((old_logp_NT - teacher_logp_NT)[mask_NT])
    if rollout.greedy_N is not None:
        metrics["greedy_reward"] = mean_of_known(rollout.greedy_N)
    used = zip(objective.shape, states, strict=True)
    metrics |= {f"{part.kind}_state": state for part, state in used if state is not None}
    if recompute:
        metrics["sampler_gap"] = largest_gap(old_logp_NT, rollout.logp_NT, mask_NT)
    return Assigned(rollout, credit, old_logp_NT, ref_logp_NT, value_NT, following, metrics)


def mean_of_known(x: Tensor) -> float:
    """Mean of the entries that are not nan; nan without one."""
    known = x[x.isfinite()]
    return float(known.mean()) if known.numel() else math.nan


def largest_gap(logp_NT: Tensor, other_NT: Tensor, mask_NT: Tensor) -> float:
    """Largest distance of two log-probs of the same tokens, in nats; nan without a token."""
    gaps = (logp_NT - other_NT)[mask_NT].abs()
    return float(gaps.max()) if gaps.numel() else math.nan


def minibatches(
    objective: Objective, assigned: Assigned, *, seed: int, step: int, epochs: int, count: int
) -> Iterator[tuple[Tokens, TokenBatch]]:
    """Split a rollout into `count` updates per epoch, each over whole groups; the weights are made per update.

    Every epoch shuffles the prompts anew. When prompts are fewer than `count`, so are the updates. An update without a
    token to learn from is left out.
    """
    rollout, credit = assigned.rollout, assigned.credit
    prompts = len(rollout.problems)
    for epoch in range(epochs if prompts else 0):
        order = noise.permutation(prompts, seed, "minibatch", step, epoch)
        for chosen in order.tensor_split(min(count, prompts)):
            rows = (chosen[:, None] * rollout.group_size + torch.arange(rollout.group_size)).flatten()
            rows = rows.to(rollout.reward_N.device)
            mask_BT = rollout.mask_NT[rows]
            if not mask_BT.any():
                continue
            batch = TokenBatch(
                mask_BT,
                objective.aggregate(mask_BT),
                credit.advantage_NT[rows],
                assigned.old_logp_NT[rows],
                None if assigned.ref_logp_NT is None else assigned.ref_logp_NT[rows],
                None if assigned.old_value_NT is None else assigned.old_value_NT[rows],
                None if credit.return_NT is None else credit.return_NT[rows],
                rollout.logp_NT[rows] if "sampler_logp" in objective.needs else None,
                objective.choose(assigned.old_logp_NT[rows], credit.advantage_NT[rows], mask_BT),
                objective.imitate(rollout.accuracy_N[rows], mask_BT),
            )
            yield rollout.tokens.rows(rows, trim=False), batch
