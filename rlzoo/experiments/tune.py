"""Tuning before a comparison: the same search for every objective, whose best value the comparison's runs then use.

    chosen(objective) = argmax over values of the mean final validation accuracy over the search's seeds

Every objective has the same values and equally many runs. A value with a failed run ranks below all others; of equal
means, the value named first wins. The search has its own seeds, `TUNE_SEEDS`, `TUNE_SEEDS + 1`, ..., and scores its
runs on the validation split. So neither the seeds nor the problems that made a value win are in the comparison.

The search's runs are in the comparison's folder, as `tune/SETTING=VALUE/OBJECTIVE/seedN`, and resume like any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.run import TUNE_SEEDS, RunConfig
from rlzoo.errors import UserError
from rlzoo.experiments.folders import TUNE, refuse_taken
from rlzoo.experiments.watch import Watch, unwatched
from rlzoo.store.files import inside
from rlzoo.training.launch import train_fleet


@dataclass(frozen=True)
class Trial:
    """One objective with one value: the validation accuracy of each seed that finished, and the cost of all seeds.

    Attributes:
        accuracies: shares, of the last evaluation.
        failed: number of seeds whose run failed.
        tokens_sampled, engine_s: summed over all seeds, failed ones included.
    """

    value: float
    accuracies: list[float]
    failed: int
    tokens_sampled: int
    engine_s: float

    @property
    def rank(self) -> tuple[bool, float]:
        """Return what trials are ordered by: those without a failure first, then the mean accuracy."""
        return not self.failed, fmean(self.accuracies) if self.accuracies else 0.0


@dataclass(frozen=True)
class Search:
    """A whole search.

    Attributes:
        setting: full name of what was searched, such as `optimizer.lr` or `surrogate.high`.
        trials: objective -> its trials, in the order of the values.
    """

    setting: str
    trials: dict[str, list[Trial]]

    @property
    def chosen(self) -> dict[str, float]:
        """Return objective -> its best value."""
        return {name: max(trials, key=lambda trial: trial.rank).value for name, trials in self.trials.items()}

    @property
    def at_the_edge(self) -> list[str]:
        """Return the objectives whose best value is the smallest or largest tried: a wider search may do better."""
        values = {name: [trial.value for trial in trials] for name, trials in self.trials.items()}
        return [name for name, best in self.chosen.items() if best in (min(values[name]), max(values[name]))]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON types: all trials, what was chosen, and what the search cost in all and per row."""
        every = [trial for trials in self.trials.values() for trial in trials]
        return {
            "setting": self.setting,
            "chosen": self.chosen,
            "at_the_edge": self.at_the_edge,
            "trials": {name: [trial.__dict__ for trial in trials] for name, trials in self.trials.items()},
            "spent": {name: _spent(trials) for name, trials in self.trials.items()},
            "runs": sum(len(trial.accuracies) + trial.failed for trial in every),
            "tokens_sampled": sum(trial.tokens_sampled for trial in every),
            "engine_s": sum(trial.engine_s for trial in every),
        }


def _spent(trials: Sequence[Trial]) -> dict[str, float]:
    """Return the runs, sampled tokens and engine seconds of a row's trials."""
    return {
        "runs": sum(len(trial.accuracies) + trial.failed for trial in trials),
        "tokens_sampled": sum(trial.tokens_sampled for trial in trials),
        "engine_s": sum(trial.engine_s for trial in trials),
    }


def search_runs(config: CompareConfig) -> dict[str, RunConfig]:
    """Return name -> run of a search: every objective with every value and every seed of the search."""
    runs: dict[str, RunConfig] = {}
    field = config.tune.field
    for value in config.tune.values:
        at_value = config.model_copy(
            update={
                "tuned": {objective.name: value for objective in config.objectives},
                "seeds": tuple(TUNE_SEEDS + i for i in range(config.tune.seeds)),
                "controls": (),
                # A search sees the validation split alone: the last evaluation of the curve is its score.
                "evaluation": config.evaluation.model_copy(update={"final_prompts": 0, "final_samples": None}),
            }
        )
        runs |= {f"{TUNE}/{field}={value!r}/{run.name}": run for run in at_value.runs()}
    return runs


def search(
    config: CompareConfig, folder: Path, *, resume: bool = False, watch: Watch = unwatched, **training: Any
) -> Search:
    """Train the runs of a comparison's search into its folder and return the search.

    Args:
        watch: see `rlzoo.experiments.watch`.
        training: what `rlzoo.training.launch.train_fleet` takes: backbone, task.

    Raises:
        UserError: as `rlzoo.experiments.compare.compare`.
    """
    if config.evaluation.prompts == "all":
        raise UserError(
            "evaluation.prompts = 'all' scores the test split, which a search for settings must not see: give a number"
        )
    refuse_taken(config, folder, resume)
    runs = search_runs(config)
    with watch(runs) as on_record:
        folders = {name: (run, inside(folder, name)) for name, run in runs.items()}
        made = train_fleet(folders, resume=resume, on_record=on_record, **training)
    trials: dict[str, list[Trial]] = {objective.name: [] for objective in config.objectives}
    for name in trials:
        for value in config.tune.values:
            same = [
                made[key] for key, run in runs.items() if run.objective.name == name and config.tune.of(run) == value
            ]
            done = [summary for summary in same if summary["state"] == "done"]
            trials[name].append(
                Trial(
                    value,
                    [summary["after"]["accuracy"] for summary in done],
                    len(same) - len(done),
                    sum(summary["tokens_sampled"] for summary in same),
                    sum(summary["engine_s"] for summary in same),
                )
            )
    return Search(config.tune.setting, trials)
