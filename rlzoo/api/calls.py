"""`rlzoo.compare`, `ablate`, `train`, `evaluate`, `reproduce`, `load`: arguments in, results out.

Settings go by the names that `rlzoo list settings` has: `train={"group_size": 16}`, `optimizer={"lr": 1e-3}`. What is
given as an object is used as it is (`rlzoo.api.given`). A folder with runs of the same settings is continued: call
again after an interruption, and a call that has ended answers from its folder.
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
        objectives: names (of `rlzoo list`, or ablations such as `gspo[ratio=token]`) or `Objective`s; "all".
        task: a name such as `sort`, `add:hard`, `jsonl:PATH`, settings, or a `Task`; a list of them: every objective
            trains on each, and their mean is judged.
        seeds: a number of them, or the seeds themselves.
        model: the base model: a name, a folder, a `Backbone`, or (model, tokenizer) of transformers.
        reward, accuracy: functions, or their import paths, in the place of the task's own.
        steps, lr, budget: short for train.steps, optimizer.lr and train.budget.
        tune: a setting with the values to choose from for each objective first: `{"lr": [7e-4, 2e-3]}`.
        controls: the first objective again: same (on other seeds), random_reward, frozen.
        config: settings under all others: a TOML file, a config.json, or a table.
        out: folder of the results; runs/TASK if not given.
        resume: go on with what the folder holds; False: refuse a folder that holds a comparison.
        progress: show the live table; None: in a notebook and in a terminal.
        settings: any other setting, by table: `train={"group_size": 16}`.

    Raises:
        UserError: a setting, objective, task, model or folder cannot be used.
        KeyboardInterrupt: interrupted; what is done up to the last checkpoint of each run is kept.
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
    """Take an objective back to its parent one column at a time, and measure what each is worth.

    Args:
        to: the other end; None: what the objective's paper set out from.
        only: "ladder" or "leave-one-out"; None: both.
        sweep: instead, a column or field with its values: `{"surrogate.high": [0.2, 0.24, 0.28]}`.
        factorial: instead, all cells in these columns; columns that change together in a list of their own.

    The others are those of `compare`, and so are the errors.
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
    """Train one objective with one seed. Arguments and errors are those of `compare`."""
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
    """Measure trained runs, or without one the base model, on held-out problems; returns a record per policy.

    Args:
        runs: results of this API, run folders, or folders of runs.
        base: the base model too.
        task, reward, accuracy, prompts, samples, greedy: over the settings of each run.
        trust: run the reward code that a run folder's settings name.
        settings: for the base model where no run is given.

    Raises:
        UserError: a folder holds no run, or a setting, model or task cannot be used.
    """
    folders = [one.folder if isinstance(one, (Comparison, TaskComparison, Run)) else Path(one) for one in runs]
    functions = {role: one for role, one in (("reward", reward), ("accuracy", accuracy)) if one is not None}
    (table, loaded), of = task_of(task), model_of(model)
    if folders:
        if settings:
            raise UserError(f"runs bring their own settings: leave out {', '.join(settings)}")
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
    """Run a published row with its own settings and set ours beside its reference points.

    Args:
        name: of `rlzoo reproduce --list`.
        steps: as many at most; later reference points are not reached.
        data: the folder of the data that the row asks for.
        out: folder of the results; runs/reproduce/NAME if not given.

    Raises:
        UserError: no such row, no data, or as `train`.
    """
    folder, place = Path(out or Path("runs") / "reproduce" / name), None if data is None else Path(data)
    config = published.prepare(name, published.find(name), folder, steps=steps, data=place)
    with _resumable(folder), watcher(progress)({config.name: config}) as on_record:
        made = published.reproduce(name, folder, steps=steps, data=place, resume=resume, on_record=on_record)
    draw(made, folder / CURVES)
    return made


def load(folder: str | Path) -> Comparison | TaskComparison | Ablation | Run:
    """Return what a folder holds: a comparison, an ablation or a run, also one that trains or was interrupted.

    Raises:
        UserError: it holds neither.
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
    """Checked settings, and the objects that were given in the place of names."""

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
    """Put arguments over settings over a configuration, and check them all; None is an argument not given."""
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
    """Return the table of a search."""
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
    """On an interruption say what is safe and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"everything up to the last checkpoint of each run is safe in {folder}: call it again to go on, "
            f"or rlzoo.load({str(folder)!r}) for what there is"
        ) from None
