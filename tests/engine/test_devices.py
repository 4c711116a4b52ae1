"""Training on another device gives the same runs: on a GPU, and on a simulated device.

The pretended one finds what is on the wrong device; it says nothing of a GPU's own kernels.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from objectives import get
from rlzoo.config.model import BackboneConfig
from rlzoo.config.run import RunConfig
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train_fleet
from tests.engine import pretend
from tests.engine.test_local import SAMPLED
from tests.training.same import assert_same_run, untimed

MakeConfig = Callable[..., RunConfig]
ROOT = Path(__file__).parents[2]
UNBUILT = pytest.mark.skipif(not pretend.can_be_built(), reason="no C++ compiler with ninja here")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
DEVICES = [
    pytest.param(pretend.NAME, marks=[pytest.mark.slow, UNBUILT]),
    pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU]),
]


@pytest.fixture(scope="session")
def train_there(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, RunConfig], Path], None]:
    """Train runs elsewhere, with an interruption after the first step."""
    build = tmp_path_factory.mktemp("pretend")

    def train(configs: Mapping[str, RunConfig], folder: Path) -> None:
        given = folder.with_suffix(".json")
        given.write_text(json.dumps({name: config.model_dump(mode="json") for name, config in configs.items()}))
        command = [sys.executable, "-m", "tests.engine.train_there", str(given), str(folder), str(build)]
        # bitsandbytes has kernels for known devices; for others it compiles its own, a minute for each shape.
        environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return train


@pytest.mark.parametrize("device", DEVICES)
def test_runs_are_those_of_the_cpu(
    device: str,
    make_config: MakeConfig,
    model_folder: Path,
    train_there: Callable[[Mapping[str, RunConfig], Path], None],
    tmp_path: Path,
) -> None:
    """In float32, interrupted and taken up. Adam's eps is 1e-5, as a tiny gradient's sign may be rounding alone."""

    def configs(device: str) -> dict[str, RunConfig]:
        tables = {"backbone": {"precision": "fp32", "device": device}, "optimizer": {"eps": 1e-5}}
        continuous = [name for name in SAMPLED if get(name).tokens is None]
        return {name: make_config(name, **tables) for name in continuous} | {
            "ppo-critic": make_config("ppo", train={"critic": "adapter"}, **tables),
            "sft": make_config("sft", **tables),
        }

    backbone = Backbone.load(BackboneConfig(model=str(model_folder), precision="fp32", device="cpu"))
    train_there(configs(device), tmp_path / "there")
    here = {name: (config, tmp_path / "here" / name) for name, config in configs("cpu").items()}
    train_fleet(here, backbone=backbone)
    for name in here:
        assert_same_run(tmp_path / "here" / name, tmp_path / "there" / name, backbone)


@pytest.mark.parametrize("device", DEVICES)
def test_four_bits_train_there(
    device: str,
    make_config: MakeConfig,
    train_there: Callable[[Mapping[str, RunConfig], Path], None],
    tmp_path: Path,
) -> None:
    """NF4 weights and bfloat16 activations, which is what a GPU is given if nobody asks for anything else."""
    there = {"backbone": {"device": device}}
    train_there({name: make_config(name, **there) for name in ("ppo", "dapo", "gspo")}, tmp_path / "there")
    for name in ("ppo", "dapo", "gspo"):
        trained = [record for record in untimed(tmp_path / "there" / name) if record["kind"] == "train"]
        assert len(trained) == 3
        assert all(math.isfinite(record["loss"]) for record in trained)
        assert any(record["gradient_norm"] > 1e-3 for record in trained)
        assert max(record["sampler_gap"] for record in trained) < 0.1  # bfloat16, in batches of other sizes
