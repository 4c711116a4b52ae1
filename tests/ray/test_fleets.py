"""Fleets on a cluster: the runs of the local engine, whatever dies in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objectives import get
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.store.lease import LEASE
from rlzoo.store.run_folder import RunFolder
from rlzoo.training.launch import train_fleet
from tests.training.same import assert_same_run

ray = pytest.importorskip("ray")
from tests.ray import trouble  # noqa: E402  needs nothing of Ray, but registers a part
from tests.ray.conftest import CLIENT_PORT  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
MakeConfig = Callable[..., RunConfig]
Runs = dict[str, tuple[RunConfig, Path]]
Records = list[tuple[str, str, int]]
SLOW = {"task": {"reward": "tests.ray.trouble:slowly"}}


def train_there(runs: Runs, cluster: Any, **options: Any) -> tuple[dict[str, dict[str, Any]], Records]:
    """Train on a cluster; returns the summaries, and name, kind and step of all that was heard."""
    heard: Records = []
    also = options.pop("on_record", lambda name, record: None)

    def hear(name: str, record: dict[str, Any]) -> None:
        heard.append((name, record["kind"], record["step"]))
        also(name, record)

    engine = {"name": "ray", "url": cluster.address, "worker_memory": 0.1} | options.pop("engine", {})
    there: Runs = {n: (c.model_copy(update={"engine": type(c.engine)(**engine)}), f) for n, (c, f) in runs.items()}
    return train_fleet(there, on_record=hear, **options), heard


def train_here(runs: Runs, backbone: Backbone, root: Path) -> tuple[dict[str, dict[str, Any]], Records]:
    """Train on the local engine, in one process, into another folder."""
    heard: Records = []
    there: Runs = {name: (config, root / name) for name, (config, _) in runs.items()}
    summaries = train_fleet(
        there, backbone=backbone, on_record=lambda name, r: heard.append((name, r["kind"], r["step"]))
    )
    return summaries, heard


def same_runs(runs: Runs, root: Path, backbone: Backbone) -> None:
    """Samples exactly, metrics and adapters to float32 rounding."""
    for name, (_, folder) in runs.items():
        assert_same_run(root / name, folder, backbone)


def of(heard: Records, name: str) -> Records:
    return [one for one in heard if one[0] == name]


def workers_of(folder: Path) -> list[str]:
    """Who trained a run, from its first worker to its last."""
    now = json.loads((folder / "environment.json").read_text())
    return [*(one["worker"] for one in now.get("earlier", [])), now["worker"]]


def test_two_nodes_train_the_runs_of_the_local_engine(
    cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Four runs, two nodes; one has a critic of its own, one fails for good."""
    configs = {
        "grpo": make_config("grpo"),
        "critic": make_config("ppo", train={"critic": "adapter"}),
        "dapo": make_config("dapo", 1),
        "bad": make_config("reinforce", optimizer={"lr": 1e38}),
    }
    runs: Runs = {name: (config, tmp_path / "there" / name) for name, config in configs.items()}
    here, heard_here = train_here(runs, backbone, tmp_path / "here")
    there, heard_there = train_there(runs, cluster)
    assert list(there) == list(here) and there["bad"]["failure"] == here["bad"]["failure"]
    assert [there[name]["state"] for name in runs] == ["done", "done", "done", "failed"]
    same_runs({name: run for name, run in runs.items() if name != "bad"}, tmp_path / "here", backbone)
    for name in runs:
        assert of(heard_there, name) == of(heard_here, name)
    assert len({worker for _, folder in runs.values() for worker in workers_of(folder)}) == 2
    assert not list(tmp_path.rglob(LEASE)) and not list(tmp_path.rglob(".storage*"))
    assert not ray.is_initialized()
    again, heard_again = train_there(runs, cluster, resume=True)  # answered from the folders
    assert again == there and of(heard_again, "grpo")[1:] == of(heard_there, "grpo")[1:]


def test_a_client_from_outside_and_a_queue(
    cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """Through ray://; each worker holds one run at a time, so two of the four wait."""
    names = ["a", "b", "c", "d"]
    runs: Runs = {name: (make_config("grpo", i), tmp_path / "there" / name) for i, name in enumerate(names)}
    train_here(runs, backbone, tmp_path / "here")
    engine = {"url": f"ray://127.0.0.1:{CLIENT_PORT}", "fleet": 1}
    there, heard = train_there(runs, cluster, engine=engine)
    assert all(summary["state"] == "done" for summary in there.values())
    same_runs(runs, tmp_path / "here", backbone)
    first = min(heard.index((name, "end", 3)) for name in names)
    assert {name for name, kind, _ in heard[:first] if kind == "start"} <= {"a", "b"}


def test_a_worker_without_runs_takes_half_of_the_slow_ones(
    cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """a and c are on one worker, b and d on the other; b and d end early, so one of a and c moves at a checkpoint."""
    steps = {"a": 12, "b": 1, "c": 12, "d": 1}
    runs: Runs = {
        name: (make_config("grpo", i, train={"steps": n}, **SLOW), tmp_path / "there" / name)
        for i, (name, n) in enumerate(steps.items())
    }
    train_here(runs, backbone, tmp_path / "here")
    there, heard = train_there(runs, cluster)
    assert [summary["step"] for summary in there.values()] == [12, 1, 12, 1]
    moved = [name for name, (_, folder) in runs.items() if len(workers_of(folder)) > 1]
    assert moved == ["a"] and len(set(workers_of(runs["a"][1]))) == 2
    assert [step for _, kind, step in of(heard, "a") if kind == "train"] == list(range(1, 13))
    same_runs(runs, tmp_path / "here", backbone)


def test_a_node_that_is_killed_costs_the_steps_since_the_checkpoint(
    own_cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """At step 5 of run a, whose last checkpoint is of step 4: the rest of a is made on the node that is left."""
    runs: Runs = {
        name: (make_config("grpo", i, train={"steps": 10, "save_every": 4}, **SLOW), tmp_path / "there" / name)
        for i, name in enumerate("ab")
    }
    train_here(runs, backbone, tmp_path / "here")
    victim = next(iter(own_cluster.worker_nodes))
    killed: list[str] = []

    def kill(name: str, record: dict[str, Any]) -> None:
        if record["kind"] == "train" and record["step"] == 5 and not killed:
            mine = {name: workers_of(folder)[-1] for name, (_, folder) in runs.items()}
            pid_of_victim = {worker.rpartition(" ")[2] for worker in mine.values()} & children_of(victim)
            killed.extend(name for name, worker in mine.items() if worker.rpartition(" ")[2] in pid_of_victim)
            own_cluster.remove_node(victim, allow_graceful=False)

    there, heard = train_there(runs, own_cluster, on_record=kill)
    assert len(killed) == 1 and all(summary["state"] == "done" for summary in there.values())
    assert len(workers_of(runs[killed[0]][1])) == 2  # it began at a checkpoint again, once
    for name in runs:
        assert [step for _, kind, step in of(heard, name) if kind == "train"] == list(range(1, 11))
    same_runs(runs, tmp_path / "here", backbone)


def children_of(node: Any) -> set[str]:
    """The process ids of a node's workers: the children of its raylet."""
    raylet = node.all_processes["raylet"][0].process.pid
    return set(Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split())


def test_a_driver_that_is_killed_is_resumed(
    cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """`kill -9` of a driver in another process; Ray ends its workers, and another driver goes on."""
    runs: Runs = {
        name: (make_config("grpo", i, train={"steps": 8}, **SLOW), tmp_path / "there" / name)
        for i, name in enumerate("ab")
    }
    train_here(runs, backbone, tmp_path / "here")
    table = {
        name: config.model_dump(mode="json") | {"engine": {"name": "ray", "url": cluster.address, "worker_memory": 0.1}}
        for name, (config, _) in runs.items()
    }
    (tmp_path / "configs.json").write_text(json.dumps(table))
    command = [sys.executable, "-m", "tests.ray.driver", tmp_path / "configs.json", tmp_path / "there"]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()})
    log = runs["b"][1] / "metrics.jsonl"
    try:
        until = time.monotonic() + 120
        while not log.exists() or '"step": 3' not in log.read_text():
            assert driver.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not (runs["b"][1] / "summary.json").exists()
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        train_there(runs, cluster)
    there, heard = train_there(runs, cluster, resume=True)
    assert all(summary["state"] == "done" and summary["step"] == 8 for summary in there.values())
    assert [step for _, kind, step in of(heard, "b") if kind == "train"] == list(range(1, 9))
    assert len(workers_of(runs["b"][1])) == 2
    same_runs(runs, tmp_path / "here", backbone)


def troubled(make_config: MakeConfig, flag: Path, trouble: str) -> RunConfig:
    flag.touch()
    part = {"kind": "troubled", "flag": str(flag), "trouble": trouble}
    return make_config(get("grpo").but(name="troubled", advantage=part))


def test_a_run_that_workers_die_of_is_given_up_alone(
    cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    """SIGKILL, as the kernel and Ray end a process that is out of memory; on one worker with a healthy run.

    It dies with both runs, again with both, then with the troubled one alone.
    """
    assert trouble.Troubled.model_fields["when"].default == 2
    runs: Runs = {
        "troubled": (troubled(make_config, tmp_path / "flag", "killed"), tmp_path / "there" / "troubled"),
        "healthy": (make_config("grpo", train={"steps": 6}), tmp_path / "there" / "healthy"),
    }
    there, heard = train_there(runs, cluster, engine={"processes": 1})
    assert there["healthy"]["state"] == "done" and there["healthy"]["step"] == 6
    assert there["troubled"]["state"] == "failed" and there["troubled"]["ended"] == "error"
    assert "3 workers died of it" in there["troubled"]["failure"] and "worker_memory" in there["troubled"]["failure"]
    assert of(heard, "troubled")[-1] == ("troubled", "end", 2)
    (tmp_path / "flag").unlink()  # more memory, say
    there, _ = train_there(runs, cluster, resume=True)
    assert there["troubled"]["state"] == "done"
    train_here(runs, backbone, tmp_path / "here")
    same_runs(runs, tmp_path / "here", backbone)


def test_a_memory_error_ends_its_run_alone(
    cluster: Any, make_config: MakeConfig, backbone: Backbone, tmp_path: Path
) -> None:
    runs: Runs = {
        "troubled": (troubled(make_config, tmp_path / "flag", "memory"), tmp_path / "there" / "troubled"),
        "healthy": (make_config("grpo"), tmp_path / "there" / "healthy"),
    }
    there, _ = train_there(runs, cluster, engine={"processes": 1})
    assert there["healthy"]["state"] == "done"
    assert (
        there["troubled"]["state"] == "failed"
        and "out of memory: no room for the advantages" in there["troubled"]["failure"]
    )
    assert RunFolder.open(runs["troubled"][1]).read_metrics()[-1]["step"] == 2
