"""A Ray cluster: connecting to it, and what a worker asks it for.

Ray places workers, restarts them and passes on what they print; nothing of it is done here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlzoo.config.engine import RAY_URL, EngineSettings
from rlzoo.engine.forked import cores
from rlzoo.errors import UserError

try:
    import ray
except ImportError as error:
    raise UserError("engine.name = 'ray' needs a package: pip install 'rlzoo[ray]'") from error

LOCAL = "local"
REACHED_WITHIN = 10.0
"""Seconds in which the port of a cluster has to answer."""
ATTEMPTS = 3
GIB = 2**30


@contextmanager
def connected(url: str | None) -> Iterator[None]:
    """Within: this process is connected to a cluster. A connection that the caller has made is used and kept.

    Raises:
        UserError: nobody answers at the address, or a cluster of another version of Ray or Python.
    """
    if ray.is_initialized():
        yield
        return
    address = url or os.environ.get("RAY_ADDRESS") or LOCAL
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, num_cpus=cores(), include_dashboard=False)
        else:
            _refuse_unreachable(address)
            _connect(address)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError, another version, no node of it here
        ray.shutdown()  # a client that did not connect would stand in the way of the next attempt
        if isinstance(error, UserError):
            raise
        text = str(error).strip()
        reason = text.splitlines()[-1] if "Traceback" in text else " ".join(text.split())
        raise UserError(f"could not connect to the Ray cluster {address}: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Connect; again if the head could not start its server for this client, which a race in its gRPC may cause."""
    for left in reversed(range(ATTEMPTS)):
        try:
            ray.init(address=address)
            return
        except ConnectionAbortedError:
            ray.shutdown()
            if not left:
                raise


def _refuse_unreachable(address: str) -> None:
    """Raise `UserError` if nobody listens there; Ray itself would try for half a minute."""
    host, _, port = address.removeprefix(RAY_URL).rpartition(":")
    if not port.isdecimal():  # "auto": Ray looks for it
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACHED_WITHIN).close()
    except OSError as error:
        raise UserError(
            f"nobody answers at {address} ({error}): start a cluster there (ray start --head; its port for ray:// is "
            "10001), or correct --engine"
        ) from None


@dataclass(frozen=True)
class Needs:
    """What one worker asks for.

    Attributes:
        cpus, gpus: one GPU where there is one and the model may use it.
        memory: bytes.
    """

    cpus: float
    gpus: int
    memory: int

    @classmethod
    def of(cls, settings: EngineSettings, device: str) -> Needs:
        """The needs of a worker whose model is on `device`, a name or "auto"."""
        kind = device.partition(":")[0]
        gpu = kind == "cuda" or (kind == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)
        return cls(settings.worker_cpus or 1, int(gpu), int((settings.worker_memory or 1) * GIB))

    @property
    def options(self) -> dict[str, Any]:
        """Options of the actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory}

    def fit(self, resources: dict[str, float]) -> int:
        """How many workers fit on a node."""
        rooms = [resources.get("CPU", 0) / self.cpus, resources.get("memory", 0) / self.memory]
        rooms += [resources.get("GPU", 0) / self.gpus] if self.gpus else []
        return int(min(rooms))

    def __str__(self) -> str:
        gpu = f", {self.gpus} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpu} and {self.memory / GIB:g} GiB"


def count_workers(settings: EngineSettings, needs: Needs, runs: int) -> int:
    """Return the number of workers for `runs` runs: what the settings say, or what the cluster has room for.

    Raises:
        UserError: it has room for none, and no number of workers was set that Ray might add nodes for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(needs.fit(node) for node in nodes)
    if room == 0 and settings.processes is None:
        have = "; ".join(
            f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU, {n.get('memory', 0) / GIB:.1f} GiB" for n in nodes
        )
        raise UserError(
            f"no node of the Ray cluster has room for a worker, which asks for {needs}; its {len(nodes)} nodes have "
            f"{have}. Lower engine.worker_cpus or engine.worker_memory, or set backbone.device"
        )
    return max(1, min(settings.processes or room, runs))
