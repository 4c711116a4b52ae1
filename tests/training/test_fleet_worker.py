"""What a worker of a cluster does, without a cluster: the runs of `train`, also when they change workers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.run import RunConfig
from rlzoo.engine.ray_worker import HandedBack
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.lease import LEASE
from rlzoo.training import fleet_worker
from rlzoo.training.fleet_worker import FleetTrainer, Job
from rlzoo.training.launch import train
from tests.training.same import assert_same_run

MakeConfig = Callable[..., RunConfig]
Records = list[tuple[str, int]]


def worker(config: RunConfig, folder: Path, proof: str = "seen") -> FleetTrainer:
    """A trainer as it arrives at a worker; `proof` is what the driver's file holds."""
    (folder / ".storage").write_text(proof)
    return pickle.loads(pickle.dumps(FleetTrainer([config], None, (folder / ".storage", "seen"), 2)))


def test_a_run_that_is_handed_back_ends_as_if_it_had_stayed(
    make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Two runs on one worker; b is recalled, saved at step 1, and continued by another worker."""
    configs = {"a": make_config("grpo"), "b": make_config("ppo", 1, train={"critic": "adapter"})}
    heard: dict[str, Records] = {"a": [], "b": []}

    def job(name: str) -> Job:
        return Job(name, configs[name], tmp_path / "there" / name)

    def tell(name: str) -> Callable[[dict[str, Any]], None]:
        return lambda record: heard[name].append((record["kind"], record["step"]))

    async def both() -> list[Any]:
        trainer = worker(configs["a"], tmp_path)
        await trainer.open(0)
        asked = [trainer.train(job(name), tell(name), lambda name=name: name == "b") for name in "ab"]
        return await asyncio.gather(*asked, return_exceptions=True)

    async def other() -> dict[str, Any]:
        trainer = worker(configs["b"], tmp_path)
        await trainer.open(1)
        heard["b"].clear()
        return await trainer.train(job("b"), tell("b"), lambda: False)

    done, handed_back = asyncio.run(both())
    assert done["state"] == "done" and isinstance(handed_back, HandedBack)
    assert ("train", 1) in heard["b"] and ("train", 2) not in heard["b"]
    assert asyncio.run(other())["step"] == 3
    assert [step for kind, step in heard["b"] if kind == "train"] == [1, 2, 3]  # it tells all from the beginning
    for name, config in configs.items():
        train(config, tmp_path / "here" / name, backbone=backbone)
        assert_same_run(tmp_path / "here" / name, tmp_path / "there" / name, backbone)
    assert not list(tmp_path.rglob(LEASE))


def test_a_worker_refuses_to_begin(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder of the same name, another version, another commit; without a checkout there is none to compare."""
    config = make_config("grpo")
    with pytest.raises(UserError, match=r"the worker on .*: it cannot use the folder .*--out"):
        asyncio.run(worker(config, tmp_path, proof="another machine's").open(0))
    trainer = worker(config, tmp_path)
    for name, there in (("torch", "1.0"), ("commit", "0123abc")):
        monkeypatch.setattr(fleet_worker, "versions", lambda: trainer.versions | {"commit": "1", name: there})  # noqa: B023
        trainer.versions["commit"] = "1"
        with pytest.raises(UserError, match=rf"{name} is {there} here and .* where it was started.*same version"):
            trainer._check(0)
    monkeypatch.setattr(fleet_worker, "versions", lambda: trainer.versions | {"commit": None})
    trainer._check(0)
