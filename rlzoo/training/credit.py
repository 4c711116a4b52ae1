"""From a rollout to what an optimizer step needs: shaped rewards, credit, and the minibatches with their weights.

    reward --shape--> reward per token --advantage--> Credit --split by prompts--> (tokens, TokenBatch) per update

The trainer asks the objective what it needs (`objective.needs`) and computes exactly that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from advantages import Credit, Need, RolloutView
from objectives import Objective, TokenBatch, rollout_metrics
from rlzoo import noise
from rlzoo.engine.protocol import BASE, Scored, ScoreRequest, Wanted
from rlzoo.engine.tokens import Tokens
from rlzoo.training.client import Client
from rlzoo.training.teacher import Teacher
from rlzoo.training.trajectories import Rollout


@dataclass(frozen=True)
class Assigned:
    """A rollout with its credit. No gradient.

    Attributes:
        view: the rollout as the objective's parts see it, before shaping.
        metrics: silent groups and advantage statistics of what is trained on, the states that the parts carry, the mean
            reward of greedy responses if there are any, `kl_teacher` if there is a teacher (nats per token,
            KL(pi || teacher) at the policy's own tokens), and `sampler_gap` if old log-probs were recomputed.
    """

    rollout: Rollout
    credit: Credit
    view: RolloutView
    old_logp_NT: Tensor
    metrics: dict[str, float]

    def given(self, name: str) -> Tensor | None:
        """A field of the view; None if the objective does not need it."""
        return self.view.given.get(name)


async def assign_credit(
    client: Client,
    objective: Objective,
    rollout: Rollout,
    *,
    step: int,
    max_length: int,
    temperature: float,
    recompute: bool,
    teacher: Teacher | None = None,
) -> Assigned:
    """Compute what the objective needs of the rollout, shape its rewards, and estimate the advantages."""
    needs, mask_NT, tokens = objective.needs, rollout.mask_NT, rollout.tokens
    old_logp_NT, ref_logp_NT, teacher_logp_NT = rollout.logp_NT, None, None
    scored = Scored()
    asked: dict[Wanted, bool] = {
        "logp": recompute,
        "value": Need.VALUE in needs,
        "entropy": Need.ENTROPY in objective.credit_needs,
        "collision": Need.COLLISION in objective.credit_needs,
    }
    want = frozenset(name for name, wanted in asked.items() if wanted)
    if want:
        scored = await client.score(ScoreRequest(client.policy, tokens, temperature, want))
        old_logp_NT = old_logp_NT if scored.logp_NT is None else scored.logp_NT
    if Need.REF_LOGP in needs:
        ref_logp_NT = (await client.score(ScoreRequest(BASE, tokens, temperature))).logp_NT
    if Need.TEACHER_LOGP in needs:
        assert teacher is not None, "the configuration of a run makes sure of it"
        teacher_logp_NT = await teacher.logp(client, tokens, temperature)
    reward_N = rollout.reward_N.nan_to_num(0.0)
    view = RolloutView.of(
        rollout.reward_NT,
        mask_NT,
        rollout.group_N,
        reward_NK=rollout.reward_NK.nan_to_num(0.0),
        names=rollout.names,
        max_length=max_length,
        step=step,
        logp_NT=old_logp_NT,
        sampler_logp_NT=rollout.logp_NT,
        ref_logp_NT=ref_logp_NT,
        teacher_logp_NT=teacher_logp_NT,
        value_NT=scored.value_NT,
        entropy_NT=scored.entropy_NT,
        collision_NT=scored.collision_NT,
        accuracy_N=rollout.accuracy_N,
        finished_N=rollout.finished_N,
        greedy_N=rollout.greedy_N,
        turn_NT=rollout.turn_NT,
        prompt_N=rollout.prompt_N,
    ).only(needs)
    credit = objective.credit(view)
    metrics = rollout_metrics(reward_N, mask_NT, rollout.group_N, credit) | objective.state_metrics()
    if teacher_logp_NT is not None:
        metrics["kl_teacher"] = mean_of_known((old_logp_NT - teacher_logp_NT)[mask_NT])
    if rollout.greedy_N is not None:
        metrics["greedy_reward"] = mean_of_known(rollout.greedy_N)
    if recompute:
        metrics["sampler_gap"] = largest_gap(old_logp_NT, rollout.logp_NT, mask_NT)
    return Assigned(rollout, credit, view, old_logp_NT, metrics)


def mean_of_known(x: Tensor) -> float:
    """Mean of the entries that are not nan; nan if all are."""
    known = x[x.isfinite()]
    return float(known.mean()) if known.numel() else math.nan


def largest_gap(logp_NT: Tensor, other_NT: Tensor, mask_NT: Tensor) -> float:
    """Largest absolute difference between two log-probs of the same tokens, in nats; nan without a token."""
    gaps = (logp_NT - other_NT)[mask_NT].abs()
    return float(gaps.max()) if gaps.numel() else math.nan


def minibatches(
    objective: Objective, assigned: Assigned, *, seed: int, step: int, epochs: int, count: int
) -> Iterator[tuple[Tokens, TokenBatch]]:
    """Split a rollout into `count` updates per epoch, each over whole groups; the weights are made per update.

    Every epoch shuffles the prompts again. With fewer prompts than `count` there are fewer updates. An update without a
    token to learn from is skipped.
    """
    rollout, credit = assigned.rollout, assigned.credit
    learn_NT = credit.mask(rollout.mask_NT)
    prompts = len(rollout.problems)
    for epoch in range(epochs if prompts else 0):
        order = noise.permutation(prompts, seed, "minibatch", step, epoch)
        for chosen in order.tensor_split(min(count, prompts)):
            rows = (chosen[:, None] * rollout.group_size + torch.arange(rollout.group_size)).flatten()
            rows = rows.to(rollout.reward_N.device)
            mask_BT = learn_NT[rows]
            if not mask_BT.any():
                continue
            ref_logp_NT, value_NT = assigned.given("ref_logp_NT"), assigned.given("value_NT")
            entropy_NT = assigned.given("entropy_NT")
            batch = TokenBatch(
                mask_BT,
                objective.weigh(mask_BT, rollout.group_N[rows]),
                credit.advantage_NT[rows],
                assigned.old_logp_NT[rows],
                None if ref_logp_NT is None else ref_logp_NT[rows],
                None if value_NT is None else value_NT[rows],
                None if credit.return_NT is None else credit.return_NT[rows],
                rollout.logp_NT[rows] if Need.SAMPLER_LOGP in objective.needs else None,
                objective.choose(
                    assigned.old_logp_NT[rows],
                    credit.advantage_NT[rows],
                    mask_BT,
                    None if entropy_NT is None else entropy_NT[rows],
                ),
                objective.imitate(rollout.accuracy_N[rows], mask_BT),
            )
            yield rollout.tokens.rows(rows, trim=False), batch
