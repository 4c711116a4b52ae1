"""Ablations: which rows, under which names, and what their contrasts say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from objectives import get, names, parent
from rlzoo.cli.plan import joint_moves
from rlzoo.config.plan import Plan
from rlzoo.config.sources import split_sweeps
from rlzoo.experiments.ablation_plan import Contrast, differing, moved, plan, plan_of
from rlzoo.experiments.ablation_plan import Plan as Rows
from rlzoo.experiments.contrasts import Measured, measure
from rlzoo.stats.judge import judge
from rlzoo.stats.scores import Trace
from rlzoo.store.outcomes import pack
from tests.backbones import *  # noqa: F403  fixtures
from tests.cli.test_app import rlzoo, small

BOTH = ("ladder", "leave-one-out")
WITH_PARENT = [name for name in names() if parent(name) is not None]


def rows(made: Rows, block: Any) -> list[str]:
    return [line.row for line in made.lines[block]]


def ladder_and_more(name: str, to: str) -> Rows:
    return plan(get(name), get(to), blocks=BOTH)


@pytest.mark.parametrize(("name", "to"), [*((n, str(parent(n))) for n in WITH_PARENT), ("ppo", "grpo")])
def test_a_ladder_goes_from_the_parent_to_the_objective_and_every_row_has_a_name(name: str, to: str) -> None:
    made = ladder_and_more(name, to)
    ladder = [get(row) for row in rows(made, "ladder")]
    assert (ladder[0], ladder[-1]) == (get(to), get(name))
    steps = [differing(above, below) for below, above in pairwise(ladder)]
    assert sorted(column for step in steps for column in step) == sorted(differing(get(name), get(to)))
    whole, *without = [get(row) for row in rows(made, "leave-one-out")]
    assert whole == get(name)
    assert {column for one in without for column in differing(one, whole)} == set(differing(whole, get(to)))
    for one in without:
        assert all(getattr(one, column) == getattr(get(to), column) for column in differing(one, whole))
    assert [get(row.name) for row in made.rows] == made.rows
    assert len({row.but(name="x") for row in made.rows}) == len(made.rows) == len({row.name for row in made.rows})
    assert all(len(row.name.encode()) <= 255 for row in made.rows)  # each is the name of a folder


def test_columns_change_in_order_of_execution() -> None:
    made = ladder_and_more("dapo", "grpo")
    assert [contrast.label.partition(":")[0] for contrast in made.contrasts[:5]] == differing(get("dapo"), get("grpo"))
    assert rows(made, "ladder")[1] == "grpo[select=mixed]"
    assert rows(made, "leave-one-out")[3] == "dapo[surrogate.high=0.2]"  # the field, as both clip
    assert rows(made, "leave-one-out")[-1] == rows(made, "ladder")[-2]  # all but the KL is the rung below the last


def test_columns_that_only_work_together_move_together_and_the_reason_is_told() -> None:
    made = ladder_and_more("ppo", "grpo")
    (rung,) = [c for c in made.contrasts if c.block == "ladder" and "gae" in c.label]
    assert rung.label.startswith("advantage: group(std) → gae(1, 0.95), value: none →")
    assert rung.note.startswith("advantage and value change together: ") and "needs a trained critic" in rung.note
    assert rows(made, "leave-one-out").count("ppo[advantage=group,value=none]") == 1
    assert len(joint_moves(made.contrasts)) == 1
    up = ladder_and_more("grpo", "reinforce")  # upwards the ratio can come first; back, the clip has to go with it
    assert [c.note for c in up.contrasts if c.block == "ladder"] == [""] * 5
    assert "grpo[ratio=none,surrogate=linear]" in rows(up, "leave-one-out")


def test_one_difference_is_two_rows() -> None:
    made = plan(get("grpo[kl=none]"), get("grpo"), blocks=BOTH)
    assert [row.name for row in made.rows] == ["grpo", "grpo[kl=none]"]
    assert [contrast.weights for contrast in made.contrasts] == [
        {"grpo[kl=none]": 1, "grpo": -1},
        {"grpo": 1, "grpo[kl=none]": -1},
    ]


def test_moved_names_a_field_where_the_kind_stays() -> None:
    assert moved(get("grpo"), get("gspo"), ["surrogate"]).name == "grpo[surrogate.low=0.0003,surrogate.high=0.0004]"
    assert moved(get("grpo"), get("dapo"), ["shape", "kl"]).name == "grpo[shape=soft_overlong,kl=none]"
    assert moved(get("grpo"), get("dapo"), []) == get("grpo")


def test_a_sweep_is_the_objective_with_each_value() -> None:
    sweeps, rest = split_sweeps(["surrogate.high=0.2, 0.24,0.28", "train.steps=5", "select=[all,mixed]"])
    assert sweeps == {"surrogate.high": ["0.2", "0.24", "0.28"], "select": ["all", "mixed"]}
    assert rest == ["train.steps=5"]
    made = plan_of("dapo", sweeps=sweeps)
    assert rows(made, "sweep") == [
        "dapo[surrogate.high=0.2]",
        "dapo[surrogate.high=0.24]",
        "dapo",
        "dapo[select=all]",
        "dapo",
    ]
    assert len(made.rows) == 4
    assert made.contrasts[1] == Contrast(
        "sweep", "surrogate.high: 0.24 → 0.28", {"dapo": 1.0, "dapo[surrogate.high=0.24]": -1.0}
    )


def run(row: str, seed: int, accuracy: float, right: list[bool] | None = None) -> Trace:
    """A run of one step, that learned all it knows."""
    costs = {"updates": 1, "tokens_sampled": 100, "step": 1}
    first = {"kind": "test", "accuracy": 0.0} | ({} if right is None else {"outcomes": pack([0.0] * len(right))})
    last = {"kind": "test", "accuracy": accuracy} | ({} if right is None else {"outcomes": pack(right)})
    told = hash((row, seed)) % 1000 + 1
    train = {"kind": "train", "reward": told, "entropy": told, "length": 1.0, "gradient_norm": told, "silent_groups": 0}
    return Trace(row, seed, [first, train | costs, last | costs], ended="steps")


def measured(contrasts: Sequence[Contrast], runs: list[Trace]) -> list[Measured]:
    """The contrasts, judged as those of a comparison of these runs on enough problems."""
    rows, seeds = {t.algorithm for t in runs}, {t.seed for t in runs}
    table = {"rows": sorted(rows), "seeds": sorted(seeds), "task": "x", "model": "x", "problems": 1000, "steps": 1}
    plan = Plan.model_validate(table | {"endpoint": "steps", "rate": "x", "margin": 0.02, "family": "contrasts"})
    return measure(contrasts, runs, plan, judge({}))


def test_effects_of_a_factorial() -> None:
    """y = 1 without both, 2 with b, 4 with a, 8 with both: a = (4+8-1-2)/2, b = (2+8-1-4)/2, ab = (1+8-2-4)/2."""
    made = plan(get("dapo"), get("grpo"), blocks=["factorial"], factors=[["select"], ["aggregate"]])
    cells = rows(made, "factorial")
    assert cells == [
        "dapo[select=all,aggregate=sequence_mean]",
        "dapo[select=all]",
        "dapo[aggregate=sequence_mean]",
        "dapo",
    ]
    runs = [run(cell, seed, y + seed) for cell, y in zip(cells, (1, 2, 4, 8), strict=True) for seed in (0, 1)]
    found = measured(made.contrasts, runs)
    assert [one.contrast.label for one in found] == ["select", "aggregate", "select x aggregate"]
    for one, expected in zip(found, (4.5, 2.5, 1.5), strict=True):
        assert one.difference is not None and one.difference.n == 2
        assert one.difference.mean == pytest.approx(expected)
        # What a seed adds to all cells leaves the effects alone: the rest is the floor of the error, of 128 problems.
        assert one.difference.half_width is not None and one.difference.half_width < 0.2


def test_three_factors_have_seven_effects_and_a_pair_that_moves_together_is_one() -> None:
    made = plan_of("dapo", factors=[["select"], ["shape"], ["aggregate"]])
    assert len(made.rows) == 8 and len(made.contrasts) == 7
    assert all(sum(c.weights.values()) == 0 for c in made.contrasts)
    pair = plan_of("ppo", "grpo", factors=[["advantage", "value"], ["kl"]])
    assert [contrast.label for contrast in pair.contrasts] == ["advantage+value", "kl", "advantage+value x kl"]


def test_contrasts_pair_the_seeds_that_all_rows_have_and_failed_ones_count() -> None:
    contrast = Contrast("ladder", "x", {"b": 1.0, "a": -1.0})
    runs = [run("a", 0, 0.25), run("a", 1, 0.5), run("a", 3, 0.0), run("b", 0, 0.75), run("b", 1, 0.75)]
    failed = Trace("b", 3, [{"kind": "eval", "accuracy": 0.125}], failed=True)
    (one,) = measured([contrast], [*runs, failed])
    # 0.5, 0.25 and 0.125: to leave out the failed seed would make it 0.375
    assert one.difference is not None and (one.difference.mean, one.difference.n) == (pytest.approx(0.875 / 3), 3)
    assert one.verdict == "inconclusive" and not one.resolved
    (none,) = measured([contrast], [failed])
    assert none.difference is None and none.verdict is None and none.told == "no verdict: its rows share no seed"


def test_contrasts_have_the_four_verdicts_and_one_family() -> None:
    """Two contrasts: each is tested at half the level at least, and an unlike cost has no verdict."""
    rng = np.random.default_rng(0)
    hard = rng.random(1000)
    gap = {"a": 0.5, "b": 0.7, "c": 0.702}
    runs = [
        run(row, s, 0.0, (hard < level + rng.normal(0, 0.002)).tolist()) for row, level in gap.items() for s in range(6)
    ]
    pairs = [Contrast("ladder", f"{x} - {y}", {x: 1.0, y: -1.0}) for x, y in (("b", "a"), ("a", "b"), ("c", "b"))]
    assert [one.verdict for one in measured(pairs, runs)] == ["better", "worse", "equivalent"]
    dear = [
        replace(t, records=[{**r, "tokens_sampled": 500} for r in t.records]) if t.algorithm == "a" else t for t in runs
    ]
    refusals = [one.refusal for one in measured(pairs, dear)]
    assert [one and one.name for one in refusals] == ["unequal cost", "unequal cost", None]


def test_rungs_add_up_to_the_whole_way() -> None:
    made = plan(get("dapo"), get("grpo"), blocks=["ladder"])
    runs = [run(row, 0, 0.1 * place**2) for place, row in enumerate(rows(made, "ladder"))]
    total = sum(one.difference.mean for one in measured(made.contrasts, runs) if one.difference is not None)
    assert total == pytest.approx(0.1 * 25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ppo"], "name the other end with --to"),
        (["grppo"], "did you mean 'grpo'?"),
        (["grpo", "--to", "grpo[surrogate.high=0.2]"], "are one algorithm"),
        (["dapo", "--set", "surrogate.high=0.2"], "list two or more values to sweep"),
        (["dapo", "--set", "surrogate.high=0.2,0.20"], "0.20 stands there twice"),
        (["dapo", "--set", "surrogate.hihg=0.2,0.3"], "did you mean 'high'?"),
        (["dapo", "--set", "kl=k3,k9"], "--set kl=k9: unknown kl 'k9'"),
        (["dapo", "--set", "train.stepps=3"], "did you mean 'steps'?"),
        (["dapo", "--set", "kl=k1,k3", "--to", "grpo"], "a sweep has none"),
        (["dapo", "--set", "kl=k1,k3", "--only", "ladder"], "a sweep or a factorial is neither"),
        (["dapo", "--factorial", "ratio"], "dapo and grpo do not differ in 'ratio', but in select, shape"),
        (["dapo", "--factorial", "kl,kl"], "'kl' stands there twice"),
        (["ppo", "--to", "grpo", "--factorial", "advantage,kl"], "by a plus: advantage+value"),
        (["dapo", "--set", "train.minibatches=1"], "are one algorithm under this schedule"),
    ],
)
def test_what_cannot_be_ablated_is_a_message(arguments: list[str], message: str) -> None:
    assert message in " ".join(rlzoo("ablate", *arguments, "--dry-run", code=2).stderr.split())


def test_a_dry_run_shows_the_rows_and_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = rlzoo("ablate", "dapo", "--dry-run", width=200).stdout
    assert "10 rows times 4 seeds: 40 runs of 60 steps." in shown
    assert "+ select: all → mixed" in shown and "dapo[aggregate=sequence_mean]" in shown
    table = json.loads(rlzoo("ablate", "dapo", "--only", "ladder", "--dry-run", "--json").stdout)
    assert table["rows"][-1] == "dapo" and len(table["contrasts"]) == 5
    assert not list(tmp_path.iterdir())


def test_an_ablation_is_run_resumed_and_written(qwen_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--seeds", 2, "--task", "sort:easy", *small(qwen_folder), "--out", out]
    shown = rlzoo("ablate", "grpo", "--set", "kl=k3,none", *arguments).stdout
    assert "kl = k3" in shown and "over the" in shown and "No verdict: " in shown
    data = json.loads(rlzoo("ablate", "grpo", "--set", "kl=k3,none", *arguments, "--resume", "--json").stdout)
    assert [row["objective"] for row in data["rows"]] == ["grpo", "grpo[kl=none]"]
    (contrast,) = data["contrasts"]
    after = {(r["objective"], r["seed"]): r["after"]["accuracy"] for r in data["runs"]}
    gaps = [after["grpo[kl=none]", seed] - after["grpo", seed] for seed in (0, 1)]
    assert contrast["difference"]["mean"] == pytest.approx(sum(gaps) / 2)
    assert json.loads((out / "summary.json").read_text())["ablation"] == data["contrasts"]
    shown = rlzoo("ablate", "grpo[kl=none]", "--factorial", "kl", "--to", "grpo", *arguments, "--resume").stdout
    assert "effect" in shown and "kl of grpo[kl=none]" in shown
