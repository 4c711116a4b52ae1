"""The loop of one run, top to bottom: sequential code that awaits its engine.

for each step:  (evaluate)  roll out  ->  assign credit  ->  one update per minibatch  ->  record  (checkpoint)
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from advantages import Need, RolloutView
from objectives import UPDATE_KEYS, Objective, update_metrics
from objectives.parts.regularize import k3
from rlzoo.config.limits import allow_files, check_runs
from rlzoo.config.run import RunConfig
from rlzoo.engine.forked import OnRecord, count_processes, divide_work, share_of
from rlzoo.engine.local import Fleet
from rlzoo.engine.optimizer import NotFinite
from rlzoo.engine.protocol import Engine, ScoreRequest, Tokens, Updated, UpdateRequest
from rlzoo.engine.sampler import SampleRequest
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Task, load_task
from rlzoo.training.credit import assign_credit, largest_gap, mean_of_known, minibatches
from rlzoo.training.evaluate import evaluate, response_metrics
from rlzoo.training.rollout import check_demonstrations, check_prompts, roll_out
from rlzoo.training.run import Run
from rlzoo.training.teacher import Teacher

OF_THE_SAMPLER = ("entropy", "kl_old")
"""Metrics that estimate something of the policy that sampled; demonstrations were not sampled."""


def train(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    on_record: OnRecord | None = None,
    backbone: Backbone | None = None,
    task: Task | None = None,
) -> dict[str, Any]:
    """Train one run into `folder` and return its summary. A single run is a fleet of one."""
    runs = {config.name: (config, folder)}
    return train_fleet(runs, resume=resume, on_record=on_record, backbone=backbone, task=task)[config.name]


def train_fleet(
    runs: dict[str, tuple[RunConfig, str | Path]],
    *,
    resume: bool = False,
    on_record: OnRecord | None = None,
    backbone: Backbone | None = None,
    task: Task | None = None,
) -> dict[str, dict[str, Any]]:
    """Train runs that share task and backbone together; returns name -> summary. See `rlzoo.engine.forked` for where.

    A run whose loss or gradient is not finite stops, its state kept, with `state: "failed"` in its summary. That is an
    outcome like any other: resuming does not try again, as the same numbers would come out.

    Args:
        runs: name -> configuration and folder.
        resume: take up folders that are there already.
        on_record: called with (name, record) for every record of every run, always in the calling thread, the records
            of one run in their order; see `rlzoo.report.progress`.
        backbone, task: what to train on instead of loading what the configurations name; a teacher is always loaded.

    Raises:
        UserError: folder, model, teacher or task cannot be used, a prompt does not fit the context, or the runs name
            different tasks, backbones or engine settings; a process that trains some of them is ended from outside.
    """
    configs = [config for config, _ in runs.values()]
    first = configs[0]
    for section in ("task", "backbone", "engine"):
        if len({repr(getattr(config, section)) for config in configs}) > 1:
            raise UserError(f"the runs of a fleet share one {section}, but these differ in it: train them one by one")
    for warning in dict.fromkeys(text for config in configs for text in config.warnings):
        warnings.warn(warning, stacklevel=2)
    task = task or load_task(first.task)
    if any("demonstration" in config.objective.needs for config in configs):
        check_demonstrations(task)
    allow_files(len(runs))
    made = {name: Run.create(config, folder, resume, name, on_record) for name, (config, folder) in runs.items()}
    backbone = backbone or Backbone.load(first.backbone)
    check_runs(len(runs), backbone.layout.size)
    for run in made.values():
        run.load(backbone)
    unfinished = [run for run in made.values() if run.summary is None]
    processes = count_processes(first.engine, backbone.device, len(unfinished))
    settings = share_of(first.engine, processes)
    named = {run.config.train.teacher for run in unfinished if run.config.train.teacher is not None}
    teachers = {config: Teacher.load(config, backbone, settings) for config in named}
    for run in unfinished:
        run.teacher = teachers.get(run.config.train.teacher)
    if unfinished:
        check_prompts(backbone, task, max(config.train.max_new_tokens for config in configs))
    fleet = Fleet(backbone, settings)
    for run in unfinished:
        run.folder.note_environment(backbone=backbone.describe())

    def train_some(names: Sequence[str], on_record: OnRecord | None, each_turn: Callable[[], None]) -> dict[str, Any]:
        for name in names:
            made[name].on_record = on_record
        return fleet.run({name: _job(made[name], backbone, task) for name in names}, each_turn)

    summaries = {run.name: run.summary for run in made.values() if run.summary is not None}
    summaries |= divide_work([run.name for run in unfinished], processes, train_some, on_record)
    return {name: summaries[name] for name in runs}


def _job(run: Run, backbone: Backbone, task: Task) -> Callable[[Engine], Any]:
    return lambda engine: run_to_end(run, backbone, task, engine)


async def run_to_end(run: Run, backbone: Backbone, task: Task, engine: Engine) -> dict[str, Any]:
    """Train a run from where it stands to its last step or the end of its budget, and return its summary."""
    if run.summary is not None:
        return run.summary
    engine.seconds = run.seconds
    run.started = time.monotonic() - run.elapsed
    try:
        while run.step < run.config.train.steps and not run.spent(engine.seconds):
            if run.step % run.config.evaluation.every == 0:
                await evaluate_run(run, backbone, task, engine)
            await train_step(run, backbone, task, engine)
            if run.step % run.config.train.save_every == 0:
                run.save(engine.seconds)
        ended = "budget" if run.spent(engine.seconds) else "steps"
        await evaluate_run(run, backbone, task, engine, last=True)
    except NotFinite as error:
        return run.finish(backbone, engine.seconds, failure=f"step {run.step}: {error}")
    return run.finish(backbone, engine.seconds, ended=ended)


async def train_step(run: Run, backbone: Backbone, task: Task, engine: Engine) -> None:
    """One rollout and its updates; the run's step counter moves on."""
    config, train, objective, learner = run.config, run.config.train, run.objective, run.learner
    rate = learner.start_step(run.step)
    request = SampleRequest(
        theta=run.policy,
        prompts=(),
        group_size=train.group_size,
        max_new_tokens=train.max_new_tokens,
        seed=config.noise_seed,
        step=run.step,
        prompt_keys=range(train.prompts_per_step),
        temperature=train.temperature,
    )
    rollout, first, account = await roll_out(
        engine,
        backbone,
        task,
        objective.select,
        request,
        needs=objective.needs,
        random_reward=config.control == "random_reward",
        shuffle=train.shuffle,
    )
    recompute = recomputes_old_logp(config, backbone)
    # Before a rollout's only update the policy is still the one it starts from: the update can tell the log-probs.
    starts_here = recompute and train.updates_per_rollout == 1 and Need.LOGP not in objective.needs
    assigned = await assign_credit(
        engine,
        objective,
        learner,
        rollout,
        step=run.step,
        max_length=train.max_new_tokens,
        temperature=train.temperature,
        recompute=recompute and not starts_here,
        teacher=run.teacher,
    )
    sampled = "demonstration" not in objective.needs
    made: list[Updated] = []
    metrics: list[dict[str, float]] = []
    gap = math.nan
    for tokens, batch in minibatches(
        objective, assigned, seed=config.noise_seed, step=run.step, epochs=train.epochs, count=train.minibatches
    ):
        request = UpdateRequest(learner, objective, tokens, batch, train.temperature, starts_here)
        updated = await engine.update(request)
        if not made and sampled:  # before the first update the policy is the sampler: any difference is arithmetic
            gap = largest_gap(updated.policy.logp_BT, updated.batch.old_logp_BT, updated.batch.mask_BT)
        made.append(updated)
        batch = replace(updated.batch, old_logp_BT=updated.policy.logp_BT) if starts_here else updated.batch
        metrics.append(update_metrics(objective, updated.policy, batch))
    over = over_updates(metrics)
    reached = await carry_on(run, objective, assigned.view, over, rollout.tokens, engine)
    run.count(account, updates=len(made), trained=train.epochs * int(rollout.mask_NT.sum()))
    run.record_step(
        {
            "sampler_gap": gap,  # unless old log-probs were recomputed: then it is in assigned.metrics
            **assigned.metrics,
            **over,
            **response_metrics(first),  # of the prompts every algorithm saw, before any selection
            **({} if sampled else dict.fromkeys(OF_THE_SAMPLER, math.nan)),
            **reached,
            "gradient_norm": sum(u.gradient_norm for u in made) / len(made) if made else math.nan,
            "learning_rate": rate,
            "rounds": account.rounds,
        },
        first,
        engine.seconds,
    )


async def carry_on(
    run: Run, objective: Objective, view: RolloutView, metrics: dict[str, float], tokens: Tokens, engine: Engine
) -> dict[str, float]:
    """Move the states of the objective's parts on, by what the rollout and its updates came to.

    Returns what was measured for it: the mean KL(old || pi) per token after the last update, for the need "new_logp".
    """
    new_logp_NT, reached = None, {}
    if Need.NEW_LOGP in objective.needs:
        request = ScoreRequest(run.learner.theta, tokens, run.config.train.temperature)
        new_logp_NT = (await engine.score(request)).logp_NT
        reached = {"kl_reached": mean_of_known(k3(view.logp_NT, new_logp_NT)[view.mask_NT])}
    run.states = objective.next_states(view.but(metrics=metrics, new_logp_NT=new_logp_NT))
    return reached


def recomputes_old_logp(config: RunConfig, backbone: Backbone) -> bool:
    """Whether the trainer takes old log-probs by a forward pass of its own; see `TrainSettings.old_logp`."""
    chosen, needs = config.train.old_logp, config.objective.needs
    if chosen != "auto":
        return chosen == "recompute"
    return "sampler_logp" in needs or (backbone.dtype != torch.float32 and "demonstration" not in needs)


async def evaluate_run(run: Run, backbone: Backbone, task: Task, engine: Engine, *, last: bool = False) -> None:
    """Evaluate a run on the held-out problems and record it."""
    train, settings = run.config.train, run.config.evaluation
    settings = settings.at_the_ends() if last or run.step == 0 else settings
    evaluation = await evaluate(
        engine,
        backbone,
        task,
        run.policy,
        settings,
        max_new_tokens=train.max_new_tokens,
        temperature=train.temperature,
    )
    run.record_evaluation(evaluation, engine.seconds)


def over_updates(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Metrics of a step's updates as one: their mean, and the extremes of the ratio; nan if there was no update."""
    if not metrics:
        return dict.fromkeys(UPDATE_KEYS, math.nan)
    merged = {key: sum(m[key] for m in metrics) / len(metrics) for key in UPDATE_KEYS}
    return merged | {
        "ratio_min": min(m["ratio_min"] for m in metrics),
        "ratio_max": max(m["ratio_max"] for m in metrics),
    }
