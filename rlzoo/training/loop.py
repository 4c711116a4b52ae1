"""The loop of one run, top to bottom: sequential code that awaits its engine.

for each step:
    (evaluate)
    roll out  ->  assign credit
    for each minibatch:  forward, backward, optimizer step
    record  (checkpoint)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from advantages import Need, RolloutView
from objectives import UPDATE_KEYS, Objective, update_metrics
from objectives.parts.regularize import k3
from rlzoo.config.run import EvaluationSettings, RunConfig
from rlzoo.engine.protocol import Codec, Engine, LearnRequest, SampleRequest, ScoreRequest
from rlzoo.engine.tokens import Tokens
from rlzoo.tasks import Task
from rlzoo.training.client import Client
from rlzoo.training.credit import assign_credit, largest_gap, mean_of_known, minibatches
from rlzoo.training.evaluate import evaluate, response_metrics, silent_groups
from rlzoo.training.failure import RunFailed
from rlzoo.training.held_out import HeldOut, held_out
from rlzoo.training.rollout import Rollout, roll_out
from rlzoo.training.run import Run, Summary
from rlzoo.training.signal import refuse_broken
from rlzoo.training.teacher import Teacher

OF_THE_SAMPLER = ("entropy", "kl_old")
"""Metrics that are estimates for the sampling policy, so they do not apply to demonstrations."""


async def run_to_end(run: Run, engine: Engine, codec: Codec, task: Task, teacher: Teacher | None = None) -> Summary:
    """Train a run from its current step to its last step or the end of its budget, and return its summary.

    A run that fails ends with the reason in its summary; see `RunFailed`.
    """
    client = await run.begin(engine)
    try:
        while run.step < run.config.train.steps and not run.spent:
            if run.step % run.config.evaluation.every == 0:
                await evaluate_run(run, client, codec, task)
            await train_step(run, client, codec, task, teacher)
            if run.step % run.config.train.save_every == 0:
                await run.meet()
        ended = "budget" if run.spent else "steps"
        await evaluate_run(run, client, codec, task, last=True)
        return await run.finish(ended)
    except RunFailed as error:
        if error.final:  # an outcome like any other: what counts is the policy of before the bad update
            with suppress(RunFailed):
                await evaluate_run(run, client, codec, task, last=True)
        return await run.fail(error)
    finally:
        await client.close()


async def train_step(run: Run, client: Client, codec: Codec, task: Task, teacher: Teacher | None = None) -> None:
    """Do one rollout and its updates, and increment the run's step counter."""
    config, train, objective = run.config, run.config.train, run.objective
    step_settings = run.step_settings()
    request = SampleRequest(
        policy=client.policy,
        prompts=(),
        group_size=train.group_size,
        max_new_tokens=train.max_new_tokens,
        seed=config.noise_seed,
        step=run.step,
        prompt_keys=range(train.prompts_per_step),
        temperature=train.temperature,
    )
    rollout, first, account = await roll_out(
        client,
        codec,
        task,
        objective.select,
        request,
        needs=objective.needs,
        random_reward=config.control == "random_reward",
        shuffle=train.shuffle,
        grading_timeout=train.grading_timeout,
    )
    recompute = recomputes_old_logp(config, client.info.dtype, client.info.sampler)
    # Before a rollout's only update the policy is still the old policy, so the update itself gives the old log-probs.
    starts_here = recompute and train.updates_per_rollout == 1 and Need.LOGP not in objective.needs
    assigned = await assign_credit(
        client,
        objective,
        rollout,
        step=run.step,
        max_length=train.max_new_tokens,
        temperature=train.temperature,
        recompute=recompute and not starts_here,
        teacher=teacher,
    )
    sampled = "demonstration" not in objective.needs
    norms: list[float] = []
    metrics: list[dict[str, float]] = []
    gap = math.nan
    for tokens, batch in minibatches(
        objective, assigned, seed=config.noise_seed, step=run.step, epochs=train.epochs, count=train.minibatches
    ):
        as_json = objective.model_dump(mode="json")
        learned = await client.forward_backward(
            LearnRequest(client.run, tokens, batch, as_json, train.temperature, starts_here)
        )
        stepped = await client.optim_step(step_settings)
        batch = batch.rows(learned.rows)
        if not norms and sampled:  # before the first update the policy is the sampler: any difference is arithmetic
            gap = largest_gap(learned.policy.logp_BT, batch.old_logp_BT, batch.mask_BT)
        if starts_here:
            batch = replace(batch, old_logp_BT=learned.policy.logp_BT)
        norms.append(stepped.gradient_norm)
        metrics.append(update_metrics(objective, learned.policy, batch))
    over = over_updates(metrics)
    reached = await carry_on(run, objective, assigned.view, over, rollout.tokens, client)
    run.count(account, updates=len(norms), trained=train.epochs * int(rollout.mask_NT.sum()))
    run.record_step(
        {
            "sampler_gap": gap,  # unless old log-probs were recomputed: then it is in assigned.metrics
            **assigned.metrics,
            **over,
            **response_metrics(first),  # of the prompts every algorithm saw, before any selection
            **({} if sampled else dict.fromkeys(OF_THE_SAMPLER, math.nan)),
            **reached,
            "gradient_norm": sum(norms) / len(norms) if norms else math.nan,
            "learning_rate": step_settings.lr,
            "rounds": account.rounds,
        },
        first,
    )
    learns = bool((assigned.credit.advantage_NT != 0)[rollout.mask_NT].any())
    run.hear(bool(norms) and has_signal(objective, rollout), norms if learns else ())


def has_signal(objective: Objective, rollout: Rollout) -> bool:
    """Whether there is something to learn from: rewards that differ in a group, or what does not need them to differ.

    A single response per prompt is compared across prompts, so it counts as a signal.
    """
    taught = {Need.DEMONSTRATION, Need.TEACHER_LOGP} & set(objective.needs) or objective.imitation is not None
    return bool(taught) or silent_groups(rollout) != 1


async def carry_on(
    run: Run, objective: Objective, view: RolloutView, metrics: dict[str, float], tokens: Tokens, client: Client
) -> dict[str, float]:
    """Advance the states of the objective's parts, given the rollout after its updates.

    Returns the metrics measured for this: for the need "new_logp", the mean KL(old || pi) per token after the last
    update.
    """
    new_logp_NT, reached = None, {}
    if Need.NEW_LOGP in objective.needs:
        scored = await client.score(ScoreRequest(client.policy, tokens, run.config.train.temperature))
        assert scored.logp_NT is not None
        new_logp_NT = scored.logp_NT
        reached = {"kl_reached": mean_of_known(k3(view.logp_NT, new_logp_NT)[view.mask_NT])}
    run.states = objective.next_states(view.but(metrics=metrics, new_logp_NT=new_logp_NT))
    return reached


def recomputes_old_logp(config: RunConfig, dtype: str, sampler: str = "local") -> bool:
    """Return whether the trainer recomputes old log-probs by a forward pass; see `TrainSettings.old_logp`.

    `dtype` and `sampler` are those of `EngineInfo`.
    """
    chosen, needs = config.train.old_logp, config.objective.needs
    if chosen != "auto":
        return chosen == "recompute"
    alike = dtype == "float32" and sampler == "local"
    return "sampler_logp" in needs or (not alike and "demonstration" not in needs)


async def evaluate_run(run: Run, client: Client, codec: Codec, task: Task, *, last: bool = False) -> None:
    """Evaluate a run on the validation split and, before the first step and after the last, on the test split."""
    train, settings = run.config.train, run.config.evaluation
    splits: list[tuple[HeldOut, Literal["eval", "test"], EvaluationSettings]] = [("validation", "eval", settings)]
    if (last or run.step == 0) and held_out(task, "test", settings.at_the_ends().prompts):
        splits.append(("test", "test", settings.at_the_ends()))
    for split, kind, chosen in splits:
        evaluation = await evaluate(
            client,
            codec,
            task,
            chosen,
            split=split,
            max_new_tokens=train.max_new_tokens,
            temperature=train.temperature,
            grading_timeout=train.grading_timeout,
        )
        run.record_evaluation(evaluation, kind)
        refuse_broken(evaluation.rollout)


def over_updates(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    """Combine the metrics of a step's updates: means, and the extremes of the ratio; nan if there was no update."""
    if not metrics:
        return dict.fromkeys(UPDATE_KEYS, math.nan)
    merged = {key: sum(m[key] for m in metrics) / len(metrics) for key in UPDATE_KEYS}
    return merged | {
        "ratio_min": min(m["ratio_min"] for m in metrics),
        "ratio_max": max(m["ratio_max"] for m in metrics),
    }
