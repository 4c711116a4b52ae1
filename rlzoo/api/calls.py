"""`rlzoo.compare`, `ablate`, `train`, `evaluate`, `reproduce`, `load`: arguments in, results out.

Settings have the names of `rlzoo list settings`: `train={"group_size": 16}`, `optimizer={"lr": 1e-3}`. Objects given
instead of names are used as they are (`rlzoo.api.given`). A folder with runs of the same settings is continued: repeat
the call after an interruption. A call that has finished before returns its result from the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from objectives import Objective
from rlzoo.api import reported
from rlzoo.api.frames import frame
from rlzoo.api.given import ModelLike, RewardLike, TaskLike, model_of, name_of, task_of, tasks_of
from rlzoo.api.live import watcher
from rlzoo.api.results import Ablation, Comparison, Run, TaskComparison
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import Model, validate
from rlzoo.config.run import RunConfig, SharedConfig
from rlzoo.config.sources import merge, put_over, read_file
from rlzoo.errors import UserError
from rlzoo.experiments import reproduce as published
from rlzoo.experiments.ablation_plan import Block, plan_of
from rlzoo.experiments.compare import read_comparison
from rlzoo.experiments.evaluate import evaluate_jobs
from rlzoo.experiments.evaluation_jobs import Job, evaluation_jobs
from rlzoo.experiments.folders import COMPARISON, comparison_folder, default_folder
from rlzoo.experiments.tasks import holds_tasks, read_tasks
from rlzoo.model.backbone import Backbone
from rlzoo.report.reproduction import draw
from rlzoo.store.run_folder import CONFIG, CURVES, SUMMARY, RunFolder
from rlzoo.tasks import Task

Settings = Mapping[str, Any]


def compare(
    objectives: str | Objective | Sequence[str | Objective],
    *,
    task: TaskLike | Sequence[TaskLike] | None = None,
    seeds: int | Sequence[int] | None = None,
    model: ModelLike | None = None,
    reward: RewardLike | None = None,
    accuracy: RewardLike | None = None,
    steps: int | None = None,
    lr: float | None = None,
    budget: str | None = None,
    tune: Mapping[str, Sequence[float]] | None = None,
    tune_seeds: int | None = None,
    controls: Sequence[str] | None = None,
    config: str | Path | Settings | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool | None = None,
    **settings: Any,
) -> Comparison | TaskComparison:
    """Train objectives side by side, each with several seeds, and compare them.

    Args:
        objectives: names (of `rlzoo list`, or ablations such as `gspo[ratio=token]`), `Objective`s, or "all".
        task: a name such as `sort`, `add:hard`, `jsonl:PATH`, settings, or a `Task`; None: sort. A list: every
            objective trains on each task, and the verdict is on the mean over tasks.
        seeds: the number of seeds, or the seeds themselves.
        model: the base model: a name, a folder, a `Backbone`, or (model, tokenizer) of transformers.
        reward, accuracy: functions or their import paths that replace the task's own.
        steps, lr, budget: short for train.steps, optimizer.lr and train.budget.
        tune: a setting with candidate values, chosen per objective on other seeds first: `{"lr": [7e-4, 2e-3]}`.
        tune_seeds: number of seeds of that search.
        controls: negative controls of the first objective: same (on other seeds), random_reward, frozen.
        config: settings that all other arguments override: a TOML file, a config.json, or a table.
        out: folder of the results; runs/TASK if not given.
        resume: continue a comparison in the folder; False: refuse such a folder.
        progress: show the live table; None: in a notebook or a terminal.
        settings: any other setting, by table: `train={"group_size": 16}`.

    Returns:
        The comparison, or for a list of tasks the comparison over tasks.

    Raises:
        UserError: a setting, objective, task, model or folder cannot be used.
        KeyboardInterrupt: interrupted; each run is kept up to its last checkpoint.
    """
    names = [objectives] if isinstance(objectives, (str, Objective)) else list(objectives)
    own: dict[str, Any] = {"objectives": names, "seeds": _listed(seeds), "controls": _listed(controls)}
    own["tune"] = _search(tune, tune_seeds)
    short = {"train": {"steps": steps, "budget": budget}, "optimizer": {"lr": lr}}
    table, loaded = tasks_of(task, reward, accuracy)
    made = _made(CompareConfig, own, settings, config, (table, None), model_of(model), short)
    folder = Path(out or comparison_folder(made.settings))
    options = {"resume": resume, "watch": watcher(progress), "backbone": made.backbone}
    with _resumable(folder):
        if made.settings.tasks:
            return TaskComparison.of(reported.compare_tasks(made.settings, folder, tasks=loaded, **options))
        only = next(iter(loaded.values()), None)
        return Comparison.of(reported.compare(made.settings, folder, task=only, **options))


def ablate(
    objective: str | Objective,
    to: str | Objective | None = None,
    *,
    only: Block | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    factorial: Sequence[str | Sequence[str]] | None = None,
    task: TaskLike | None = None,
    seeds: int | Sequence[int] | None = None,
    model: ModelLike | None = None,
    reward: RewardLike | None = None,
    accuracy: RewardLike | None = None,
    steps: int | None = None,
    lr: float | None = None,
    budget: str | None = None,
    config: str | Path | Settings | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool | None = None,
    **settings: Any,
) -> Ablation:
    """Change an objective back to its parent one column at a time, and measure the effect of each column.

    Args:
        objective: a name or an `Objective`.
        to: the objective at the other end; None: the parent, from which the objective's paper started.
        only: "ladder" or "leave-one-out"; None: both.
        sweep: instead, a column or field with its values: `{"surrogate.high": [0.2, 0.24, 0.28]}`.
        factorial: instead, all combinations of these columns; columns that change together are a list.

    All other arguments, and the errors, are those of `compare`.
    """
    factors = None if factorial is None else [[one] if isinstance(one, str) else list(one) for one in factorial]
    sweeps = {key: [str(value) for value in values] for key, values in (sweep or {}).items()}
    plan = plan_of(objective, to, only=only, sweeps=sweeps, factors=factors)
    own = {"objectives": list(plan.rows), "seeds": _listed(seeds)}
    short = {"train": {"steps": steps, "budget": budget}, "optimizer": {"lr": lr}}
    made = _made(CompareConfig, own, settings, config, task_of(task, reward, accuracy), model_of(model), short)
    name = objective if isinstance(objective, str) else objective.name
    folder = Path(out or default_folder(f"{made.settings.task.name}-ablate-{name}"))
    with _resumable(folder):
        result = reported.ablate(
            plan, made.settings, folder, resume=resume, watch=watcher(progress), backbone=made.backbone, task=made.task
        )
    return Ablation.of_ablation(result)


def train(
    objective: str | Objective,
    *,
    task: TaskLike | None = None,
    seed: int | None = None,
    model: ModelLike | None = None,
    reward: RewardLike | None = None,
    accuracy: RewardLike | None = None,
    steps: int | None = None,
    lr: float | None = None,
    budget: str | None = None,
    config: str | Path | Settings | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool | None = None,
    **settings: Any,
) -> Run:
    """Train one objective with one seed (default 0). Arguments and errors are those of `compare`.

    The default folder is runs/TASK/OBJECTIVE/seedN.
    """
    own = {"objective": objective, "seed": seed}
    short = {"train": {"steps": steps, "budget": budget}, "optimizer": {"lr": lr}}
    made = _made(RunConfig, own, settings, config, task_of(task, reward, accuracy), model_of(model), short)
    folder = Path(out or default_folder(made.settings.task.name) / made.settings.name)
    with _resumable(folder):
        reported.train(
            made.settings, folder, resume=resume, watch=watcher(progress), backbone=made.backbone, task=made.task
        )
    return Run.read(folder)


def evaluate(
    *runs: str | Path | Comparison | TaskComparison | Run,
    base: bool = False,
    task: TaskLike | None = None,
    prompts: int | None = None,
    samples: int | None = None,
    greedy: bool = False,
    model: ModelLike | None = None,
    reward: RewardLike | None = None,
    accuracy: RewardLike | None = None,
    trust: bool = False,
    **settings: Any,
) -> Any:
    """Measure trained runs, or the base model if there are none, on held-out problems; returns a record per policy.

    Args:
        runs: results of this API, run folders, or folders of runs.
        base: evaluate the base model as well.
        task, reward, accuracy, prompts, samples, greedy: override the settings of each run.
        model: the base model as an object; see `compare`.
        trust: allow reward code that a run folder's settings name.
        settings: settings of the base model if no run is given.

    Raises:
        UserError: a folder holds no run, or a setting, model or task cannot be used.
    """
    folders = [one.folder if isinstance(one, (Comparison, TaskComparison, Run)) else Path(one) for one in runs]
    functions = {role: one for role, one in (("reward", reward), ("accuracy", accuracy)) if one is not None}
    (table, loaded), of = task_of(task), model_of(model)
    if folders:
        if settings:
            raise UserError(f"runs have their own settings: leave out {', '.join(settings)}")
        named = [f"task.{role}={json.dumps(name_of(one))}" for role, one in functions.items()]
        jobs = evaluation_jobs(
            folders,
            base=base,
            task=table,
            prompts=prompts,
            samples=samples,
            greedy=greedy,
            assignments=named,
            trust=trust,
        )
    else:
        short = {
            "evaluation": {"prompts": prompts, "final_prompts": prompts, "samples": samples, "greedy": greedy or None}
        }
        jobs = [Job("base", None, _made(SharedConfig, {}, settings, None, (table, loaded), of, short).settings)]
    results = evaluate_jobs(jobs, backbone=of[1], task=loaded, functions=functions)
    return frame({**{k: v for k, v in result.items() if k != "metrics"}, **result["metrics"]} for result in results)


def reproduce(
    name: str,
    *,
    steps: int | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool | None = None,
) -> published.Reproduction:
    """Run a published row with its own settings and compare the result with its reference points.

    Args:
        name: a name of `rlzoo reproduce --list`.
        steps: at most this many steps; later reference points are not reached.
        data: the folder with the data that the row needs.
        out: folder of the results; runs/reproduce/NAME if not given.
        resume, progress: as in `compare`.

    Raises:
        UserError: an unknown row, missing data, or an error of `train`.
    """
    folder, place = Path(out or Path("runs") / "reproduce" / name), None if data is None else Path(data)
    config = published.prepare(name, published.find(name), folder, steps=steps, data=place)
    with _resumable(folder), watcher(progress)({config.name: config}) as on_record:
        made = published.reproduce(name, folder, steps=steps, data=place, resume=resume, on_record=on_record)
    draw(made, folder / CURVES)
    return made


def load(folder: str | Path) -> Comparison | TaskComparison | Ablation | Run:
    """Return the comparison, ablation or run in a folder, even if it is still training or was interrupted.

    Raises:
        UserError: the folder has none of them.
    """
    folder = Path(folder)
    if holds_tasks(folder):
        return TaskComparison.of(read_tasks(folder))
    if (folder / COMPARISON).is_file():
        comparison = read_comparison(folder)
        stored = RunFolder(folder).read_json(SUMMARY) if (folder / SUMMARY).is_file() else {}
        if "ablation" in stored:
            from rlzoo.experiments.ablate import read_ablation

            return Ablation.of_ablation(read_ablation(folder))
        return Comparison.of(comparison)
    if (folder / CONFIG).is_file():
        return Run.read(folder)
    raise UserError(f"{folder} holds neither a comparison ({COMPARISON}) nor a run ({CONFIG})")


@dataclass(frozen=True)
class _Made(Generic[Model]):
    """Checked settings, and the objects that were given instead of names."""

    settings: Model
    task: Task | None
    backbone: Backbone | None


def _made(
    kind: type[Model],
    own: Settings,
    settings: Settings,
    config: str | Path | Settings | None,
    task: tuple[Any, Task | None],
    model: tuple[Settings | None, Backbone | None],
    short: Mapping[str, Settings],
) -> _Made[Model]:
    """Merge arguments over settings over a configuration, and check the result. None: the argument was not given."""
    base = dict(config) if isinstance(config, Mapping) else read_file(Path(config)) if config else {}
    over = {key: {name: x for name, x in table.items() if x is not None} for key, table in short.items()}
    over |= {"backbone": model[0] or {}}
    table = merge(
        merge(put_over(base, {**own, "task": task[0]}), settings), {key: inner for key, inner in over.items() if inner}
    )
    return _Made(validate(kind, table, "these settings"), task[1], model[1])


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _search(tune: Mapping[str, Sequence[float]] | None, seeds: int | None) -> dict[str, Any] | None:
    """Return the settings table of a search; None without one."""
    if tune is None and seeds is None:
        return None
    if tune is not None and len(tune) != 1:
        raise UserError(f"tune: one setting with its values, such as {{'lr': [7e-4, 2e-3]}}, got {tune!r}")
    table: dict[str, Any] = {} if seeds is None else {"seeds": seeds}
    for setting, values in (tune or {}).items():
        table |= {"setting": setting, "values": list(values)}
    return table


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """On an interruption, add to the KeyboardInterrupt what is saved and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"each run is saved up to its last checkpoint in {folder}: repeat the call to continue, or read it with "
            f"rlzoo.load({str(folder)!r})"
        ) from None
