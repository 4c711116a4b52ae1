"""Peak memory of one forward and backward pass with and without gradient checkpointing, beside what is computed.

    python -m benchmarks.activations --write benchmarks/results/memory.md

    computed without = layers * c * width * tokens       with = (c * width + layers * width * 4) * tokens

(c = 110 bytes in float32; `rlzoo.config.sizes.activation_bytes`, which `rlzoo explain` and the engine's admission use.)
A model of random weights of the shape of Qwen2.5-0.5B, in float32 on the CPU; a process for each measurement.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.speed_memory import PeakMemory
from benchmarks.speed_models import SHAPES, write
from objectives import TokenBatch, get
from rlzoo.cli.shell import guarded
from rlzoo.config.engine import EngineSettings
from rlzoo.config.model import BackboneConfig
from rlzoo.config.sizes import activation_bytes
from rlzoo.engine.driver import drive
from rlzoo.engine.local import opened
from rlzoo.engine.protocol import LearnRequest, RunSpec
from rlzoo.engine.tokens import Tokens
from rlzoo.model.backbone import Backbone

SHAPE = "qwen2.5-0.5b-shape"
ROWS, PROMPT, RESPONSE = 4, 16, 112
GIB = 2**30


def request(rows: int, prompt: int, response: int) -> LearnRequest:
    """REINFORCE on rows of random tokens, each with a prompt of its own."""
    generator = torch.Generator().manual_seed(0)
    token_NT = torch.randint(3, 90, (rows, response), generator=generator)
    mask_NT = torch.ones_like(token_NT, dtype=torch.bool)
    prompts = torch.randint(3, 90, (rows, prompt), generator=generator).tolist()
    tokens = Tokens(prompts, torch.arange(rows), token_NT, mask_NT, mask_NT)
    advantage_NT = torch.tensor([1.0, -1.0]).repeat(rows)[:rows, None] * mask_NT
    batch = TokenBatch(mask_NT, mask_NT / mask_NT.sum(), advantage_NT, torch.zeros(rows, response))
    return LearnRequest("run", tokens, batch, get("reinforce").model_dump(mode="json"), 1.0)


def measure(model: str, checkpointing: bool, fast_path: str) -> dict[str, float]:
    """Return the peak above the loaded model in GiB, the loaded model, and the seconds of one pass."""
    backbone = Backbone.load(BackboneConfig(model=model, precision="fp32", device="cpu"))
    asked = request(ROWS, PROMPT, RESPONSE)
    settings = EngineSettings(gradient_checkpointing=checkpointing, fast_path=fast_path)

    async def job() -> dict[str, float]:
        async with opened(backbone, settings) as engine:
            await engine.create(RunSpec("run"))
            memory, began = PeakMemory(backbone.device), time.monotonic()
            await engine.forward_backward(asked)
            seconds = time.monotonic() - began
            return {"loaded": memory.loaded / GIB, "above": (memory.peak() - memory.loaded) / GIB, "seconds": seconds}

    return drive(job())


def table(measured: dict[str, dict[str, float]]) -> str:
    """Return the measurements as Markdown, beside what is computed."""
    shape, tokens = SHAPES[SHAPE], ROWS * (PROMPT + RESPONSE)
    lines = [
        f"One forward and backward pass of {tokens:,} tokens ({ROWS} rows of {PROMPT} + {RESPONSE}), random weights of "
        f"{SHAPE.removesuffix('-shape')}, float32, CPU; made by `python -m benchmarks.activations`. GiB.",
        "",
        "| checkpoints | fast path | model | activations, computed | peak above the model, measured | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in measured.items():
        checkpointing, fast_path = name.split("/")
        computed = tokens * activation_bytes(shape.hidden_size, shape.layers, "fp32", checkpointing == "on") / GIB
        lines.append(
            f"| {checkpointing} | {fast_path} | {one['loaded']:.2f} | {computed:.2f} | {one['above']:.2f} | "
            f"{one['seconds']:.0f} |"
        )
    logits = tokens * shape.vocabulary * 4 / GIB
    lines += [
        "",
        f"Beside activations the peak has the head's logits, {logits:.2f} GiB for each copy of all of them, and the "
        "adapters' gradients. The fast path keeps less than transformers' own layers, and is off with checkpoints.",
    ]
    return "\n".join(lines) + "\n"


@guarded
def main(
    write_to: Annotated[Path | None, typer.Option("--write", help="Markdown file to write.")] = None,
    model: Annotated[Path | None, typer.Option(hidden=True)] = None,
    one: Annotated[str | None, typer.Option(hidden=True, help="checkpoints/fast path, in this process.")] = None,
) -> None:
    """Measure without and with checkpoints on the plain path, and without on the CPU's fast path, which has none."""
    if one is not None:
        checkpointing, fast_path = one.split("/")
        print(json.dumps(measure(str(model), checkpointing == "on", fast_path)))
        return
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        made = write(SHAPES[SHAPE], Path(folder))
        for name in ("off/off", "on/off", "off/auto"):
            command = [sys.executable, "-m", "benchmarks.activations", "--model", str(made), "--one", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            measured[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, measured[name], flush=True)
    text = table(measured)
    print(text)
    if write_to is not None:
        write_to.write_text(f"# Memory of a training pass\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
