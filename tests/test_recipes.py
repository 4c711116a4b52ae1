"""Every TOML file of the benchmarks is a configuration that can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlzoo.config.comparison import CompareConfig
from rlzoo.config.messages import validate
from rlzoo.config.sources import read_file
from rlzoo.config.warmstart import WarmstartConfig
from rlzoo.tasks import load_task

RECIPES = sorted((Path(__file__).parents[1] / "benchmarks" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    table = read_file(path)
    if path.stem.startswith("warmstart"):
        validate(WarmstartConfig, table, str(path))
        return
    config = validate(CompareConfig, table, str(path))
    assert load_task(config.task).problem("train", 0).prompt
    assert config.train.updates_per_rollout > 1  # or ratios, and all that acts on them, would be inert


def test_the_demo_compares_the_five_with_four_seeds() -> None:
    path = next(path for path in RECIPES if path.stem == "demo")
    config = validate(CompareConfig, read_file(path), str(path))
    assert [o.name for o in config.objectives] == ["reinforce", "ppo", "grpo", "dapo", "gspo"]
    assert len(config.seeds) == 4 and config.backbone.precision == "nf4" and config.backbone.model == "shipped"
