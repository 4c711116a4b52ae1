"""Evaluation of trained runs, or of the base model, on held-out problems: `rlzoo evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlzoo.errors import UserError
from rlzoo.experiments.evaluation_jobs import Job
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Task, load_task
from rlzoo.training.evaluate import evaluate_policy


def evaluate_jobs(
    jobs: Iterable[Job],
    *,
    on_job: Callable[[Job], None] = lambda job: None,
    backbone: Backbone | None = None,
    task: Task | None = None,
    functions: Mapping[str, str | Callable[..., Any]] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate policies on held-out problems; each base model is loaded once.

    Args:
        on_job: called with each job before it begins.
        backbone, task: what to evaluate on instead of loading what the settings name.
        functions: `reward` and `accuracy` in the place of the tasks' own.

    Returns a table per job as JSON types: policy, task, prompts, samples, greedy, metrics.

    Raises:
        UserError: a model, adapter or task cannot be used, or the settings name an engine elsewhere.
    """
    results = []
    loaded: dict[Any, Backbone] = {}
    for job in jobs:
        if job.config.engine.name != "local":
            raise UserError(f"an evaluation is computed here: leave out engine.name = {job.config.engine.name!r}")
        if backbone is None and job.config.backbone not in loaded:
            loaded = {job.config.backbone: Backbone.load(job.config.backbone)}
        on_job(job)
        on = task or load_task(job.config.task.model_copy(update=dict.fromkeys(functions or ())))
        on = on.scored_by(**functions) if functions else on
        results.append(evaluate_job(job, backbone or loaded[job.config.backbone], on))
    return results


def evaluate_job(job: Job, backbone: Backbone, task: Task) -> dict[str, Any]:
    """Evaluate one policy and return the outcome as JSON types."""
    config = job.config
    settings = config.evaluation.at_the_ends()  # so that the last evaluation of a run is repeated
    settings = settings if settings.prompts else config.evaluation
    evaluation = evaluate_policy(
        backbone,
        task,
        job.adapter,
        settings,
        batching=config.engine,
        max_new_tokens=config.train.max_new_tokens,
        temperature=config.train.temperature,
    )
    return {
        "policy": job.policy,
        "task": config.task.name,
        "prompts": len(evaluation.rollout.problems),
        "samples": settings.samples,
        "greedy": config.evaluation.greedy,
        "metrics": evaluation.metrics,
    }
