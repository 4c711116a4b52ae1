"""Fair tuning: every objective gets the same search, on seeds of its own, and its winner runs again on fresh ones.

    chosen(objective) = argmax over values of the mean final held-out accuracy over the search's seeds

A value under which a run failed comes after all others; of equals, the one named first wins. The search's seeds are
`TUNE_SEEDS`, `TUNE_SEEDS + 1`, ..., so the luck that made a value win is not in the comparison. Its problems are: they
are the held-out ones, the same for all, so tuned accuracies are a little high for every objective alike.

The search's runs are in the comparison's folder, as `tune/SETTING=VALUE/OBJECTIVE/seedN`, and resume like any others.
"""

from __future__ import annotations

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
    """One objective with one value: the final accuracies of the seeds that finished, and what all of them cost."""

    value: float
    accuracies: list[float]
    failed: int
    tokens_sampled: int
    engine_s: float

    @property
    def rank(self) -> tuple[bool, float]:
        """What the best has the most of."""
        return not self.failed, fmean(self.accuracies) if self.accuracies else 0.0


@dataclass(frozen=True)
class Search:
    """A whole search: objective -> its trials, in the order of the values."""

    setting: str
    trials: dict[str, list[Trial]]

    @property
    def chosen(self) -> dict[str, float]:
        """Objective -> its best value."""
        return {name: max(trials, key=lambda trial: trial.rank).value for name, trials in self.trials.items()}

    @property
    def at_the_edge(self) -> list[str]:
        """Objectives whose best value is the smallest or the largest tried: a wider search might do better."""
        values = {name: [trial.value for trial in trials] for name, trials in self.trials.items()}
        return [name for name, best in self.chosen.items() if best in (min(values[name]), max(values[name]))]

    def as_dict(self) -> dict[str, Any]:
        """JSON types: every number of the search, what it chose, and what it cost."""
        every = [trial for trials in self.trials.values() for trial in trials]
        return {
            "setting": self.setting,
            "chosen": self.chosen,
            "at_the_edge": self.at_the_edge,
            "trials": {name: [trial.__dict__ for trial in trials] for name, trials in self.trials.items()},
            "runs": sum(len(trial.accuracies) + trial.failed for trial in every),
            "tokens_sampled": sum(trial.tokens_sampled for trial in every),
            "engine_s": sum(trial.engine_s for trial in every),
        }


def search_runs(config: CompareConfig) -> dict[str, RunConfig]:
    """Name -> run of a search: every objective with every value and every seed of the search."""
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
    """Run a comparison's search into its folder.

    Args:
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
