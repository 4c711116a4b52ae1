"""Jobs on the engine of a Ray worker, for `test_conformance.py`: real actors, which stay for the next job."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Coroutine
from typing import Any

from rlzoo.config.engine import EngineSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.engine import load_model, open_engine
from rlzoo.model.backbone import Backbone

_workers: dict[BackboneConfig, Any] = {}


class JobTrainer:
    """Loads a model, and does each job on an engine of its own."""

    def __init__(self, config: BackboneConfig) -> None:
        self.config = config

    async def open(self, place: int) -> None:
        self.model = load_model(self.config)

    async def train(self, job: Any, tell: Any, recalled: Any) -> bytes:
        async with open_engine(self.model, EngineSettings()) as engine:
            return pickle.dumps(await job(engine))


def on_ray(model: Backbone, job: Callable[[Any], Coroutine[Any, Any, Any]]) -> bytes:
    """In the worker of a cluster that loads the same model."""
    import ray

    from rlzoo.engine.ray_worker import Worker

    if not ray.is_initialized():
        ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
    if model.config not in _workers:
        _workers[model.config] = ray.remote(Worker).options(num_cpus=0).remote(JobTrainer(model.config), 0)
        ray.get(_workers[model.config].open.remote())
    worker = _workers[model.config]
    ray.get(worker.train.remote("job", job))
    ((what, _, content),) = ray.get(worker.listen.remote())
    if what == "error":
        raise content
    return content


def end_cluster() -> None:
    """End the cluster, if there is one."""
    if _workers:
        import ray

        _workers.clear()
        ray.shutdown()
