"""Settings of the engine: where runs are trained, who samples, and how work is batched."""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rlzoo.config.settings import Settings

RAY_URL = "ray://"
OWN = {"url": "ray tinker", "fleet": "ray tinker", "worker_cpus": "ray", "worker_memory": "ray", "patience": "tinker"}
"""Setting -> the engines that it is for."""
OF_SERVERS = ("name", "url", "fleet", "patience")
"""Settings that apply where another machine's server computes."""


class VllmSettings(Settings):
    """How vLLM is started, for `sampler = "vllm"`."""

    context: int = Field(default=4096, ge=16)
    """Maximum tokens of prompt and response together, at most the model's own; a longer prompt is refused."""
    cache_gib: float = Field(default=4.0, gt=0)
    """Memory of vLLM's key-value cache in GiB, beside its copy of the base model; must hold one row of `context`."""
    adapters: int = Field(default=8, ge=1)
    """Maximum number of adapters in one batch of vLLM. The responses of further runs wait."""
    eager: bool = False
    """Do not capture CUDA graphs: a faster start and slower sampling. On a CPU there are none."""


class EngineSettings(Settings):
    """Where runs are trained, who samples, and how work is batched. Changes speed and memory, never results; another
    sampler than the engine's own changes their rounding."""

    name: Literal["local", "ray", "tinker"] = "local"
    """local: this machine; ray: the workers of a Ray cluster, each with one device and a share of the runs. Written as
    ray://HOST:PORT it sets `url` too. tinker: a server of the Tinker API, which samples and trains; this machine
    computes losses and rewards only."""
    url: str | None = None
    """Of ray: ray://HOST:PORT (from outside the cluster) or HOST:PORT (from one of its nodes). None: the environment
    variable RAY_ADDRESS, or else a cluster started on this machine for the time of the training. Of tinker: http://
    or https:// and the server's address; its key is in the environment variable TINKER_API_KEY."""
    patience: float | None = Field(default=None, gt=0)
    """Of tinker: seconds that a run waits for a server that has gone away; then it stops, to be resumed. None: 300."""
    sampler: Literal["local", "vllm"] = "local"
    """What samples: the engine itself, or vLLM in the same process, which holds a second copy of the base model."""
    vllm: VllmSettings | None = None
    """Settings of `sampler = "vllm"`; None: the defaults."""
    micro_batch_tokens: int = Field(default=4096, ge=1)
    """Maximum tokens of the forward passes that run at one time, over all processes of a machine (with ray: of one
    worker); a prompt counts once per group."""
    processes: int | None = Field(default=None, ge=1)
    """Number of processes that share the runs of a fleet, at most one per run; None: on a CPU one per core, or fewer if
    the passes would become too small. Several processes on one machine need Linux and no visible GPU. With ray: the
    number of workers; None: as many as the cluster has room for."""
    fast_path: Literal["auto", "off"] = "auto"
    """auto: for model types known to allow it, pack rows without padding, and on a CPU use layers optimized for small
    models; off: transformers' own forward pass on padded rows. `environment.json` records the path."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass instead of keeping its activations: less memory, about a third more
    time. For models whose passes of `micro_batch_tokens` do not fit."""
    sample_rows: int = Field(default=768, ge=1)
    """Maximum number of responses decoded at once, over all processes of a machine (with ray: by one worker)."""
    fleet: int | None = Field(default=None, ge=1)
    """Maximum number of runs that a worker (of ray) or the server (of tinker) trains at the same time; the others wait
    in a queue. None: of ray an equal share of all runs, of tinker all."""
    worker_cpus: float | None = Field(default=None, gt=0)
    """Of ray: CPUs that a worker asks for; None: 1."""
    worker_memory: float | None = Field(default=None, gt=0)
    """Of ray: memory in GiB that a worker asks for, which Ray places workers by; None: 1."""

    @model_validator(mode="before")
    @classmethod
    def _with_address(cls, value: Any) -> Any:
        """Write the string "ray", and `name = "ray://HOST:PORT"`, as a table with name and url."""
        value = {"name": value} if isinstance(value, str) else value
        name = value.get("name") if isinstance(value, dict) else None
        if not isinstance(name, str) or not name.startswith(RAY_URL):
            return value
        if value.get("url") not in (None, name):
            raise ValueError(f"engine.name = {name!r} and engine.url = {value['url']!r} differ: leave one of them out")
        return value | {"name": "ray", "url": name}

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Self:
        for field, names in OWN.items():
            if self.name not in names.split() and getattr(self, field) is not None:
                whose = " or ".join(map(repr, names.split()))
                raise ValueError(f"engine.{field} is for engine.name = {whose}, and the name is {self.name!r}")
        if self.name == "tinker":
            self._of_a_server()
        elif self.url is not None:
            host, _, port = self.url.removeprefix(RAY_URL).rpartition(":")
            if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
                raise ValueError(f"engine.url = {self.url!r} is no address: write ray://HOST:PORT or HOST:PORT")
        return self

    def _of_a_server(self) -> None:
        """Refuse settings of this machine's own batches, and an address that is none."""
        url = urlsplit(self.url or "")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(
                f"engine.name = 'tinker' needs the server's address: engine.url = {self.url!r}, write http://HOST:PORT"
            )
        fields = type(self).model_fields
        idle = [name for name in fields if name not in OF_SERVERS and getattr(self, name) != fields[name].default]
        if idle:
            raise ValueError(
                f"engine.{idle[0]} is for this machine's batches, and the server makes its own: leave it out"
            )

    @model_validator(mode="after")
    def _vllm_samples(self) -> Self:
        if self.sampler != "vllm" and self.vllm is not None:
            raise ValueError(f"engine.vllm is for engine.sampler = 'vllm', and the sampler is {self.sampler!r}")
        if self.sampler == "vllm" and self.name == "local" and (self.processes or 1) > 1:
            raise ValueError(
                f"engine.processes = {self.processes}, but vLLM samples for all runs in one process: leave it out"
            )
        return self

    def context_length(self, of_model: int | None) -> int | None:
        """Return the maximum tokens of prompt and response together, given the model's (None: unlimited)."""
        if self.sampler == "local":
            return of_model
        chosen = (self.vllm or VllmSettings()).context
        return chosen if of_model is None else min(chosen, of_model)
