"""A real server of the Tinker API for tests: SkyRL's JAX backend on a CPU, with a toy Llama.

`make tinker-server` makes its environment, in `.tinker` or where RLZOO_TINKER_PYTHON points. The first test that needs
the server starts it, and it ends with the tests. Its first request of every shape is compiled, for some ten seconds;
what it compiled is kept in `.tinker/compiled`.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pickle
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.engine import EngineSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.engine import load_model, open_engine
from rlzoo.engine.driver import run_jobs
from rlzoo.engine.protocol import Engine
from rlzoo.engine.tinker_server import ping
from rlzoo.model.hub import SHIPPED, load_tokenizer

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("RLZOO_TINKER_PYTHON") or ROOT / ".tinker" / "bin" / "python")
RANK = 8
ADAPTERS = 6
STARTS_WITHIN = 240.0
BACKEND = (
    f'{{"max_lora_adapters":{ADAPTERS},"max_lora_rank":{RANK},"train_micro_batch_size":1,"sample_max_num_sequences":8}}'
)
MISSING = (
    "the extra tinker is not installed"
    if importlib.util.find_spec("tinker") is None
    else None
    if PYTHON.is_file()
    else f"no server environment at {PYTHON}: make tinker-server, or set RLZOO_TINKER_PYTHON"
)
MARKS = [pytest.mark.tinker, pytest.mark.timeout(1200), pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


def toy_llama(folder: Path) -> Path:
    """The shipped model as a Llama, which the server can compute: without its biases, which it hardly needs."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2ForCausalLM

    shipped = Qwen2ForCausalLM.from_pretrained(SHIPPED, dtype="float32")
    kept = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"),
        *("bos_token_id", "eos_token_id", "pad_token_id"),
    )
    llama = LlamaForCausalLM(LlamaConfig(**{name: getattr(shipped.config, name) for name in kept}))
    llama.load_state_dict({name: x for name, x in shipped.state_dict().items() if not name.endswith("bias")})
    llama.save_pretrained(folder)
    load_tokenizer(str(SHIPPED)).save_pretrained(folder)
    return folder


class Skyrl:
    """A server process on a port of its own. It can be stopped and started again with all that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, str(toy_llama(folder / "llama"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        environment = os.environ | {
            "VIRTUAL_ENV": str(PYTHON.parents[1]),
            "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
            "UV_OFFLINE": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".tinker" / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        environment.pop("PYTHONPATH", None)
        command = ["uv", "run", "--active", "--no-project", "-m", "skyrl.tinker.api", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--base-model", self.model, "--backend", "jax"]
        command += ["--backend-config", BACKEND, "--checkpoints-base", str(self.folder / "checkpoints")]
        command += ["--database-url", f"sqlite:///{self.folder}/server.db"]
        program = shutil.which("uv", path=environment["PATH"]) or "uv"
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["nice", "-n", "5", program, *command[1:]],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while ping(self.url) is not None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.5)

    def stop(self) -> None:
        """Kill it with its engine, as a machine that loses its power."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def settings(self, **changes: Any) -> EngineSettings:
        """Settings of an engine on it."""
        return EngineSettings(name="tinker", url=self.url, **changes)

    def backbone(self) -> BackboneConfig:
        """Settings of its model."""
        return BackboneConfig.model_validate({"model": self.model, "lora": {"r": RANK}, "precision": "fp32"})


@cache
def server() -> Skyrl:
    """The server of this process, started at the first call."""
    folder = Path(tempfile.mkdtemp(prefix="rlzoo-skyrl-"))
    made = Skyrl(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(made.stop)
    made.start()
    return made


@cache
def connected() -> Any:
    """Its model, with what was measured of it."""
    return load_model(server().backbone(), server().settings())


def on_server(model: object, job: Callable[[Engine], Coroutine[Any, Any, Any]]) -> bytes:
    """Run a job on an engine of the server; its model takes the place of the one that the other engines have."""

    async def pickled(engine: Engine) -> bytes:
        return pickle.dumps(await job(engine))

    return run_jobs(lambda: open_engine(connected(), server().settings()), {"": pickled})[""]
