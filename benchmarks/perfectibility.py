"""Perfectibility: on prompts the base solves 20-80% of the time, a sound algorithm reaches over 95% training accuracy.

    python -m benchmarks.perfectibility --set task=sort:medium --out runs/perfectibility

This is the "sanity test" of 2510.26788: train on problems that are neither unsolved nor solved until they are solved.
Training accuracy is measured on these prompts with fresh samples. The last output is a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rlzoo.api.reported import compare
from rlzoo.cli.live import watched
from rlzoo.cli.shell import guarded
from rlzoo.config.comparison import CompareConfig
from rlzoo.config.sources import settings
from rlzoo.errors import UserError
from rlzoo.experiments.compare import Comparison
from rlzoo.model.backbone import Backbone
from rlzoo.tasks import Problem, Scores, Split, Task, load_task
from rlzoo.training.evaluate import evaluate_policy

GOAL = 0.95
LOW, HIGH = 0.2, 0.8


class Half(Task):
    """The problems of another task that the base solves about half of the time, as training and as test split."""

    kind = "half"

    def __init__(self, task: Task, problems: list[Problem]) -> None:
        super().__init__(f"{task.label}, half solved")
        self.task, self.problems = task, problems

    @classmethod
    def from_config(cls, config: object, argument: str) -> Task:
        raise TypeError("made from another task and a backbone, not from settings")

    def size(self, split: Split) -> int:
        return len(self.problems)

    def problem(self, split: Split, index: int) -> Problem:
        return self.problems[index]

    def grade(self, problem: Problem, completion: str) -> float:
        return self.task.grade(problem, completion)

    def score(self, problems: Sequence[Problem], completions: Sequence[str]) -> Scores:
        return self.task.score(problems, completions)


def half_solved(backbone: Backbone, task: Task, config: CompareConfig, candidates: int, samples: int) -> list[Problem]:
    """Return the training problems whose share of right samples under the base is between LOW and HIGH."""
    problems = [task.problem("train", index) for index in range(candidates)]
    probe = Half(task, problems)
    wide = config.evaluation.model_copy(update={"prompts": candidates, "samples": samples, "greedy": False})
    evaluation = evaluate_policy(
        backbone,
        probe,
        None,
        wide,
        batching=config.engine,
        max_new_tokens=config.train.max_new_tokens,
        temperature=config.train.temperature,
    )
    share_P = evaluation.rollout.accuracy_N.view(-1, samples).mean(dim=1).tolist()
    tried = evaluation.rollout.problems  # distinct, without the validation problems
    return [problem for problem, share in zip(tried, share_P, strict=True) if LOW <= share <= HIGH]


def table(comparison: Comparison, steps: int) -> Table:
    """Return one row per algorithm: training accuracy before and after, and that of the worst seed."""
    made = Table("algorithm", "before", "after", "worst seed", f"over {GOAL:.0%}", box=None)
    for row in comparison.rows:
        after = [s["after"]["accuracy"] for s in comparison.summaries if s["objective"] == row.objective and s["after"]]
        if row.before is None or row.after is None:
            made.add_row(row.objective, "-", "-", "-", f"all {row.failed} seeds failed")
            continue
        made.add_row(
            row.objective,
            f"{row.before.mean:.1%}",
            f"{row.after.mean:.1%}",
            f"{min(after):.1%}",
            f"{sum(a > GOAL for a in after)} of {row.seeds} seeds in {steps} steps",
        )
    return made


@guarded
def main(
    config: Annotated[Path, typer.Option("--config", "-c")] = Path("benchmarks/recipes/perfectibility.toml"),
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("runs/perfectibility"),
    problems: Annotated[int, typer.Option(help="Half-solved problems to train on.")] = 64,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C")] = None,
    resume: bool = False,
) -> None:
    """Train every objective on half-solved problems and report which exceed the goal."""
    chosen = settings(CompareConfig, config, assignments or [], {})
    backbone, task = Backbone.load(chosen.backbone), load_task(chosen.task)
    found = half_solved(backbone, task, chosen, candidates=4 * problems, samples=16)[:problems]
    if not found:
        raise UserError(
            f"{task.label}: the base solves none of {4 * problems} problems {LOW:.0%} to {HIGH:.0%} of the time"
        )
    evaluation = chosen.evaluation.model_copy(update={"prompts": len(found)})
    chosen = chosen.model_copy(update={"evaluation": evaluation})
    console = Console()
    console.print(
        f"{task.label}: {len(found)} of {4 * problems} problems are solved {LOW:.0%} to {HIGH:.0%} of the time"
    )
    watch = partial(watched, folder=out)
    result = compare(chosen, out, resume=resume, watch=watch, backbone=backbone, task=Half(task, found))
    console.print(table(result, chosen.train.steps))


if __name__ == "__main__":
    typer.run(main)
