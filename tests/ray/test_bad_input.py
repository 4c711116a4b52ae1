"""What a cluster cannot do is said at the start: a clear sentence, before anything trains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.engine import EngineSettings
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.training.launch import train, train_fleet
from tests.ray.conftest import CLIENT_PORT, two_nodes

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
MakeConfig = Callable[..., RunConfig]


def there(make_config: MakeConfig, **engine: Any) -> RunConfig:
    return make_config("grpo", engine={"name": "ray", "worker_memory": 0.1} | engine)


@pytest.mark.parametrize("prefix", ["ray://", ""])
def test_an_address_where_nobody_answers(make_config: MakeConfig, tmp_path: Path, prefix: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=rf"nobody answers at {prefix}127\.0\.0\.1:{port}.*--engine"):
        train(there(make_config, url=f"{prefix}127.0.0.1:{port}"), tmp_path / "run")
    assert not ray.is_initialized() and not any((tmp_path / "run").glob("*.json"))


def test_a_port_where_something_else_answers(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own error, with the address."""
    monkeypatch.setattr("ray.util.client.worker.INITIAL_TIMEOUT_SEC", 1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"ray://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"could not connect to the Ray cluster {address}"):
            train(there(make_config, url=address), tmp_path / "run")
    ray.init(address="local", num_cpus=1, include_dashboard=False)  # nothing of the attempt stands in the way
    ray.shutdown()


def test_a_worker_of_another_version(make_config: MakeConfig, tmp_path: Path) -> None:
    """Its node's Python path begins with a folder that says so, as an older wheel's would."""
    old = tmp_path / "old" / "rlzoo-0.0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: rlzoo\nVersion: 0.0.1\n")
    cluster = two_nodes(second=os.pathsep.join([str(tmp_path / "old"), os.getcwd()]))
    try:
        runs = {name: (there(make_config, url=cluster.address), tmp_path / name) for name in "ab"}
        with pytest.raises(UserError, match=r"the worker on .*: rlzoo is 0\.0\.1 here and .* where it was started"):
            train_fleet(runs)
        assert not any(tmp_path.glob("a/*.json"))
    finally:
        cluster.shutdown()


def test_nodes_without_the_package(make_config: MakeConfig, tmp_path: Path) -> None:
    """Through ray://, from a folder that has it: what the driver imports from its own folder does not travel."""
    cluster = two_nodes(path="", ray_client_server_port=CLIENT_PORT + 1)
    try:
        with pytest.raises(UserError, match=r"cannot import \w+: install rlzoo\[ray\].*on every node"):
            train(there(make_config, url=f"ray://127.0.0.1:{CLIENT_PORT + 1}"), tmp_path / "run")
    finally:
        cluster.shutdown()


def test_a_worker_that_does_not_see_the_folder(make_config: MakeConfig, tmp_path: Path) -> None:
    """Its node has another file system mounted there, as a machine without the shared folder would."""
    runs = tmp_path / "runs"
    runs.mkdir()
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mounting needs rights that this user has not")
    cluster = two_nodes()
    try:
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        start = f"exec {Path(sys.executable).parent / 'ray'} start --address={cluster.address} --num-cpus=1 --block"
        node = subprocess.Popen(["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {runs} && {start}"])
        try:
            _wait_for_nodes(cluster, 2)
            config = there(make_config, url=cluster.address, processes=2)
            with pytest.raises(UserError, match=r"the worker on .*cannot use the folder .*runs.*No such file.*--out"):
                train_fleet({name: (config, runs / name) for name in "ab"})
            assert not any(runs.glob("*/*.json")) and not list(runs.glob(".storage*"))
        finally:
            node.terminate()
            node.wait()
    finally:
        cluster.shutdown()


def _wait_for_nodes(cluster: Any, count: int) -> None:
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        until = time.monotonic() + 60
        while sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()) < count:
            assert time.monotonic() < until
            time.sleep(0.2)
    finally:
        ray.shutdown()


def test_what_the_cluster_has_no_room_for(cluster: Any, make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no node .* asks for 64 CPU and 0\.1 GiB; its 2 nodes have 1 CPU"):
        train(there(make_config, url=cluster.address, worker_cpus=64), tmp_path / "run")
    with pytest.raises(UserError, match=r"no node .* asks for 1 CPU, 1 GPU"):
        config = there(make_config, url=cluster.address)
        train(
            config.model_copy(update={"backbone": config.backbone.model_copy(update={"device": "cuda"})}),
            tmp_path / "run",
        )


def test_a_model_that_no_worker_finds(cluster: Any, make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(
        engine={"name": "ray", "url": cluster.address, "worker_memory": 0.1}, backbone={"model": "./none"}
    )
    with pytest.raises(UserError, match=r"the worker on .*none"):
        train(config, tmp_path / "run")


def test_a_model_that_was_given_as_an_object(make_config: MakeConfig, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loads the model on its workers: name it"):
        train(there(make_config), tmp_path / "run", backbone=backbone)


def test_settings_of_a_worker() -> None:
    """What an actor declares, and how many fit: the scarcest of CPU, GPU and memory decides."""
    from rlzoo.engine.ray_cluster import GIB, Needs

    needs = Needs(2, 1, 4 * GIB)
    assert needs.options == {"num_cpus": 2, "num_gpus": 1, "memory": 4 * GIB}
    assert needs.fit({"CPU": 16, "GPU": 4, "memory": 64 * GIB}) == 4
    assert needs.fit({"CPU": 16, "GPU": 8, "memory": 9 * GIB}) == 2
    assert needs.fit({"CPU": 16, "memory": 64 * GIB}) == 0
    assert Needs.of(EngineSettings(name="ray"), "cpu") == Needs(1, 0, GIB)
    assert Needs.of(EngineSettings(name="ray", worker_cpus=4, worker_memory=8), "cuda:0") == Needs(4, 1, 8 * GIB)
