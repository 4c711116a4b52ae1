"""Clusters of two nodes with one CPU each, on this machine; Ray itself, no stand-in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runs import *  # noqa: F403  pytest finds fixtures by name

CLIENT_PORT = 10_000 + os.getpid() % 10_000


def two_nodes(path: str = os.getcwd(), second: str | None = None, **head: Any) -> Any:
    """Start a cluster of two nodes, whose workers find packages in `path`, too; those of the second in `second`."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # no statistics to Ray's makers
        patch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")  # the head forks a server for each client
        patch.setenv("PYTHONPATH", path)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **head})
        cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": path if second is None else second})
    return cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster that no test changes."""
    made = two_nodes(ray_client_server_port=CLIENT_PORT)
    yield made
    made.shutdown()


@pytest.fixture
def own_cluster() -> Iterator[Any]:
    """A cluster that a test may break."""
    made = two_nodes()
    yield made
    made.shutdown()
