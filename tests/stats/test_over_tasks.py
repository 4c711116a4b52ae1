"""Several tasks judged together: the mean over tasks, its error, its preconditions, and its level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.plan import Plan
from rlzoo.stats.crossed import estimate
from rlzoo.stats.over_tasks import aggregates, improvements, primary_over_tasks, scores_over_tasks
from rlzoo.stats.scores import Trace
from rlzoo.store.outcomes import pack
from tests.stats.simulated import runs

TASKS = ("add:medium", "sort:hard")


def plan(**changes: Any) -> Plan:
    table = {"objectives": ["grpo", "gspo"], "seeds": 6, "task": list(TASKS), "train": {"steps": 4}}
    return Plan.of(CompareConfig.model_validate(table | changes))


def trace(row: str, seed: int, outcomes: Sequence[float], start: float = 0.2, **changes: Any) -> Trace:
    before = np.zeros(len(outcomes))
    before[: round(start * len(outcomes))] = 1.0
    costs = {"tokens_sampled": 100, "updates": 16}
    records = [
        {"kind": "test", "step": 0, "accuracy": start, "outcomes": pack(before.tolist()), "tokens_sampled": 0},
        {"kind": "train", "step": 1, "reward": 0.5, "entropy": 100 * ord(row[1]) + seed, "length": 3.0}
        | {"gradient_norm": 1.0, "silent_groups": 0.0, **costs},
        {"kind": "test", "step": 4, "accuracy": float(np.mean(outcomes)), "outcomes": pack(list(outcomes)), **costs},
    ]
    return Trace(row, seed, [record | changes.get(record["kind"], {}) for record in records], ended="steps")


def study(shifts: Mapping[str, Sequence[float]], seeds: int = 6, problems: int = 400) -> dict[str, list[Trace]]:
    """Runs of each row with a logit per task, on the same problems of each task."""
    tasks = {}
    for place, task in enumerate(TASKS):
        rng = np.random.default_rng([3, place])
        difficulty = rng.normal(0, 1.5, problems)
        made = {row: runs(rng, seeds, difficulty, 0.5 + shift[place]) for row, shift in shifts.items()}
        tasks[task] = [trace(row, seed, list(x)) for row, of in made.items() for seed, x in of.items()]
    return tasks


def test_every_task_counts_alike_whatever_its_number_of_problems() -> None:
    """Task one: 1 of 2 right. Task two: 3 of 4. Their mean is 0.625, that of the six problems 0.667."""
    tasks = {"one": [trace("grpo", 0, [1.0, 0.0])], "two": [trace("grpo", 0, [1.0, 1.0, 1.0, 0.0])]}
    scores, strata = scores_over_tasks(tasks)
    # M / (T m_t) = 6 / (2 * 2) = 1.5 and 6 / (2 * 4) = 0.75
    assert strata == [2, 4] and np.asarray(scores["grpo"][0]).tolist() == [1.5, 0.0, 0.75, 0.75, 0.75, 0.0]
    assert float(np.mean(scores["grpo"][0])) == pytest.approx((0.5 + 0.75) / 2)


def test_only_seeds_and_rows_of_every_task_count() -> None:
    tasks = {
        "one": [trace("grpo", seed, [1.0, 0.0]) for seed in (0, 1)] + [trace("gspo", 0, [1.0, 1.0])],
        "two": [trace("grpo", 1, [1.0, 0.0, 0.0])],
    }
    scores, _ = scores_over_tasks(tasks)
    assert {row: list(of) for row, of in scores.items()} == {"grpo": [1]}
    assert scores_over_tasks({"one": [], "two": tasks["two"]})[0] == {}


def test_without_single_outcomes_the_mean_over_tasks_is_one_number_a_seed() -> None:
    bare = trace("grpo", 0, [1.0, 0.0], test={"outcomes": None})
    scores, strata = scores_over_tasks({"one": [bare], "two": [trace("grpo", 0, [1.0, 1.0])]})
    assert strata is None and scores["grpo"][0] == pytest.approx(0.75)


def test_the_better_row_over_tasks_is_found_though_it_is_worse_on_none() -> None:
    tasks = study({"grpo": (0.0, 0.0), "gspo": (0.8, 0.8)})
    made = primary_over_tasks(tasks, plan())
    assert made.refusal is None and made.pair("gspo", "grpo").verdict == "better"
    assert made.scope.startswith("Held-out accuracy after 4 steps, mean over 2 tasks: add:medium, sort:hard (800 prob")
    assert made.level == pytest.approx(0.05 * 0.75)
    found = made.pair("gspo", "grpo").found
    assert found.seeds == 6 and found.problems == 800
    rows = aggregates(tasks)
    assert [row.row for row in rows] == ["gspo", "grpo"]
    means = [one.mean for one in rows[0].tasks.values()]
    assert rows[0].mean.mean == pytest.approx(sum(means) / 2) == pytest.approx(made.standings[0].mean.mean)
    assert rows[0].profile.share[0] == 1.0 and rows[0].iqm.mean == pytest.approx(rows[0].mean.mean, abs=0.02)
    assert improvements(tasks)["gspo", "grpo"].mean > 0.9


def test_gains_on_one_task_and_losses_on_the_other_cancel() -> None:
    made = primary_over_tasks(study({"grpo": (0.0, 0.0), "gspo": (1.0, -1.0)}), plan())
    assert made.refusal is None and made.pair("gspo", "grpo").verdict == "inconclusive"
    assert abs(made.pair("gspo", "grpo").difference.mean) < 0.03


def test_a_seed_s_luck_over_tasks_is_in_the_error() -> None:
    """Seeds that are lucky on both tasks vary as much on their mean; those lucky on one each vary by half."""
    rng = np.random.default_rng(4)
    luck = rng.normal(0, 1.0, (200, 4, 1))
    same = np.concatenate([luck + 0.1 * rng.normal(size=(200, 4, 20)) for _ in range(2)], axis=2)
    own = np.concatenate([x + 0.1 * rng.normal(size=(200, 4, 20)) for x in (luck, rng.permutation(luck))], axis=2)
    together, apart = (np.mean([(estimate(x, (20, 20)).error or 0) ** 2 for x in t]) for t in (same, own))
    assert together == pytest.approx(2 * apart, rel=0.15) and together == pytest.approx(1 / 4, rel=0.15)


def test_the_interval_over_tasks_covers_the_truth() -> None:
    """4 seeds, 3 tasks of 40 to 160 problems, effects of seeds, seeds on a task and problems: 93 to 97% +- 1.6."""
    rng, sizes, trials = np.random.default_rng(6), (40, 80, 160), 1000
    weights = np.repeat([sum(sizes) / (3 * m) for m in sizes], sizes)
    covered = 0
    for _ in range(trials):
        parts = [
            0.1 * rng.standard_normal((4, 1)) + 0.4 * rng.standard_normal((1, m)) + rng.standard_normal((4, m))
            for m in sizes
        ]
        table = 0.1 * rng.standard_normal((4, 1)) + np.concatenate(parts, axis=1)
        covered += estimate(table * weights, sizes).interval().sign == 0
    room = 2.3 * math.sqrt(0.05 * 0.95 / trials)
    assert 0.93 - room < covered / trials < 0.97 + room


def test_what_refuses_a_verdict_on_one_task_or_on_all() -> None:
    tasks = study({"grpo": (0.0, 0.0), "gspo": (0.8, 0.8)})
    late = {**tasks, TASKS[1]: tasks[TASKS[1]][1:]}
    refused = primary_over_tasks(late, plan()).refusal
    assert refused is not None and refused.reason == "the plan is not complete: 1 of its runs has not ended"
    nothing = primary_over_tasks({**tasks, TASKS[1]: []}, plan()).refusal
    assert nothing is not None and nothing.name == "plan incomplete" and "12 of its runs" in nothing.reason

    def with_metrics(task: str, **train: Any) -> list[Trace]:
        return [
            Trace(t.algorithm, t.seed, [r | (train if r["kind"] == "train" else {}) for r in t.records], ended="steps")
            for t in tasks[task]
        ]

    silent = {"silent_groups": 1.0}
    once = primary_over_tasks({**tasks, TASKS[1]: with_metrics(TASKS[1], **silent)}, plan())
    assert once.pair("gspo", "grpo").verdict == "better"  # it learned on the other
    never = primary_over_tasks({task: with_metrics(task, **silent) for task in TASKS}, plan()).pair("gspo", "grpo")
    assert never.refusal is not None and never.refusal.reason.startswith("on every task, every group of g")
    dear = {
        task: [t if t.algorithm == "grpo" or task == TASKS[0] else _dear(t) for t in of] for task, of in tasks.items()
    }
    unequal = primary_over_tasks(dear, plan()).pair("gspo", "grpo").refusal
    assert unequal is not None and unequal.reason.startswith("on sort:hard, gspo sampled 2 times the tokens of grpo")
    assert primary_over_tasks(tasks, None).refusal is not None


def _dear(one: Trace) -> Trace:
    records = [r | ({"tokens_sampled": 200} if r["step"] else {}) for r in one.records]
    return Trace(one.algorithm, one.seed, records, ended="steps")


def test_of_several_tasks_fewer_problems_each_suffice() -> None:
    """A margin of 2 points needs 200 problems; one of 2 * 100 weighs half a point of the mean, as one of 200 does."""
    tasks = study({"grpo": (0.0, 0.0), "gspo": (0.8, 0.8)}, problems=100)
    assert primary_over_tasks(tasks, plan()).refusal is None
    few = primary_over_tasks(study({"grpo": (0.0, 0.0), "gspo": (0.8, 0.8)}, problems=99), plan()).refusal
    assert few is not None and "one weighs 0.5 points, and at least 100 are needed" in few.reason


def test_a_single_task_has_its_share_of_the_level() -> None:
    config = CompareConfig.model_validate({"objectives": ["grpo", "gspo"], "task": ["add", "sort:hard", "sort:easy"]})
    alone = Plan.of(config.by_task()["sort:hard"], part_of=3)
    assert alone.level == pytest.approx(0.05 / 3) and (alone.task, alone.tasks) == ("sort:hard", ())
    assert alone.scope(10, 4).endswith("One of 3 tasks that share the chance of a wrong verdict.")
    whole = Plan.of(config)
    assert whole.level == 0.05 and whole.tasks == ("add", "sort:hard", "sort:easy")
    tuned = Plan.of(config.model_copy(update={"tune": config.tune.model_copy(update={"values": (1e-3, 7e-4)})}))
    assert tuned.rate == "at each row's best lr on each task"
